"""How commands speak: a table or a sentence for people, one JSON object for programs, errors with a next step."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from paroma.kernel.clock import iso
from paroma.learn.runs.report import RunReport
from paroma.sdk import tables

if TYPE_CHECKING:
    from paroma.trust.identity.people import Person  # loads the database, which these commands may do without

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress on stderr.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="Which of your profiles; else PAROMA_PROFILE.")]


def app(text: str) -> typer.Typer:
    """A group of commands. Plain help: it starts faster, and reads the same in a log."""
    return typer.Typer(help=text, add_completion=False, rich_markup_mode=None, no_args_is_help=False)


def done(value: object, text: str, *, json: bool) -> None:
    """The outcome: `value` as one JSON object, or `text`."""
    print(msgspec.json.encode(value).decode() if json else text)


def say(line: str) -> None:
    """A line of progress, never on stdout."""
    print(line, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, none: str) -> str:
    """A table, or the sentence `none` where there is no row."""
    return tables.columns(head, rows) if rows else none


def people(found: "Sequence[Person]") -> str:
    """Who is or was enrolled, a line each."""
    rows = [
        (one.name, one.role, f"revoked {iso(one.revoked)}" if one.revoked else "", one.person, one.thumbprint)
        for one in found
    ]
    return table(("name", "role", "", "person", "key"), rows, none="nobody is enrolled yet")


def paged(text: str, command: str) -> str:
    """`text`, and the command that opens the same as a page."""
    return f"{text}\n\nas a page: {command}"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Name and value, a line each; what is empty is left out."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs if value)


def ago(seconds: float) -> str:
    """How long ago, in one unit."""
    if seconds < 1:
        return "now"
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def problem(sentence: str, do: str, *, json: bool, status: int) -> int:
    """Say what is wrong and what to do; `status` is handed back for the exit."""
    if json:
        print(msgspec.json.encode({"error": sentence, "do": do}).decode())
    else:
        print(f"error: {sentence}\n  do: {do}", file=sys.stderr)
    return status


class Watching:
    """Draws a run on stderr while it goes on: in a terminal one line that grows, else a line a round."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told = 0
        self._status = ""

    def __call__(self, report: RunReport) -> None:
        """Show what is new."""
        values = [one.value for one in report.progress if one.value is not None]
        if self._terminal:
            last = f"  {report.measure} {tables.figure(values[-1], 4)}" if values else ""
            line = f"{report.status}, round {report.step}  {tables.sparkline(values[-60:])}{last}"
            end = "\n" if report.ended is not None else ""
            print(f"\r\x1b[2K{line}", end=end, file=sys.stderr, flush=True)
            return
        for one in report.progress[self._told :]:
            value = "" if one.value is None else f": {report.measure} {tables.figure(one.value, 6)}"
            say(f"round {one.step}{value}")
        self._told = len(report.progress)
        if report.status != self._status:
            self._status = report.status
            say(report.status + (f": {report.reason}" if report.reason else ""))
