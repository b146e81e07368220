"""Finds the group of commands that is asked for, loads it and no other, and ends every error in one place.

`paroma --help` needs neither the groups nor typer, so it is there at once.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from paroma.kernel.release import VERSION

if TYPE_CHECKING:
    import typer

USAGE: Final = 2
FAILED: Final = 1
EXTRAS: Final = {
    "hub": "hub",
    **dict.fromkeys(("site", "policy"), "site"),
    **dict.fromkeys(("bench", "demo"), "lab"),
}


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` (without the program's name) say; the exit status: 0, 1 for an error, 2 for wrong usage."""
    first = arguments[0] if arguments else "--help"
    if first in {"--help", "-h", "help"}:
        print(help_text())
        return 0
    if first == "--version":
        if "--json" in arguments:
            print(f'{{"version": "{VERSION}"}}')
        else:
            print(f"paroma {VERSION}")
        return 0
    group = GROUPS.get(first)
    if group is None:
        from paroma.cli import show

        known = ", ".join(GROUPS)
        return show.problem(
            f"there is no command `{first[:60]}`", f"name one of {known}", json="--json" in arguments, status=USAGE
        )
    return _in_group(first, group[1], list(arguments[1:]))


def help_text() -> str:
    """The first page of help."""
    width = max(map(len, GROUPS))
    lines = [f"  {name.ljust(width)}  {what}" for name, (what, _) in GROUPS.items()]
    return "\n".join(
        [
            "Usage: paroma COMMAND ...",
            "",
            "Hospitals compute together: no record leaves, every consent is live.",
            "",
            *lines,
            "",
            "  --version  the release",
            "",
            "`paroma COMMAND --help` says more. Every command takes --json: one object on stdout, progress on stderr.",
        ]
    )


def _in_group(name: str, load: "Callable[[], typer.Typer]", arguments: list[str]) -> int:
    import click
    from typer import core
    from typer.main import get_command

    from paroma.cli import show
    from paroma.kernel.errors import ParomaError

    core.HAS_RICH = False  # plain help; with rich at hand typer escapes brackets even where rich does not print them
    json = "--json" in arguments
    try:
        command = get_command(load())
        outcome = command(arguments or _help(command), prog_name=f"paroma {name}", standalone_mode=False)
    except click.UsageError as problem:
        where = problem.ctx.command_path if problem.ctx is not None else f"paroma {name}"
        return show.problem(_sentence(problem.format_message()), f"see `{where} --help`", json=json, status=USAGE)
    except click.exceptions.Abort:
        return show.problem("interrupted", "repeat the command; what was done stays done", json=json, status=130)
    except ParomaError as problem:
        return show.problem(problem.message, problem.do, json=json, status=FAILED)
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] == "paroma" or name not in EXTRAS:
            raise
        return show.problem(
            f"`{problem.name}` is not installed, and `paroma {name}` needs it",
            f"pip install 'paroma[{EXTRAS[name]}]'",
            json=json,
            status=FAILED,
        )
    except OSError as problem:
        what = f"`{problem.filename}`: " if problem.filename else ""
        return show.problem(
            f"{what}{_sentence(problem.strerror or str(problem))}",
            "look at the path, its owner and its rights",
            json=json,
            status=FAILED,
        )
    return outcome if isinstance(outcome, int) else 0


def _help(command: "click.Command") -> list[str]:  # type: ignore[name-defined]  # noqa: F821  # loaded by the caller
    return ["--help"] if hasattr(command, "commands") else []


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".").replace("'", "`")
    return text[:1].lower() + text[1:]


def _hub() -> "typer.Typer":
    from paroma.cli import hub

    return hub.APP


def _site() -> "typer.Typer":
    from paroma.cli import site

    return site.APP


def _desk() -> "typer.Typer":
    from paroma.cli import desk

    return desk.APP


def _login() -> "typer.Typer":
    from paroma.cli import person

    return person.LOGIN


def _whoami() -> "typer.Typer":
    from paroma.cli import person

    return person.WHOAMI


def _study() -> "typer.Typer":
    from paroma.cli import study

    return study.APP


def _permit() -> "typer.Typer":
    from paroma.cli import permit

    return permit.APP


def _run() -> "typer.Typer":
    from paroma.cli import run as runs

    return runs.APP


def _policy() -> "typer.Typer":
    from paroma.cli import policy

    return policy.APP


def _audit() -> "typer.Typer":
    from paroma.cli import audit

    return audit.APP


def _key() -> "typer.Typer":
    from paroma.cli import keys

    return keys.APP


def _bench() -> "typer.Typer":
    from paroma.cli import bench

    return bench.APP


def _demo() -> "typer.Typer":
    from paroma.cli import demo

    return demo.APP


GROUPS: Final[dict[str, tuple[str, "Callable[[], typer.Typer]"]]] = {
    "hub": ("make and run the meeting point, invite sites and people", _hub),
    "site": ("join a federation, keep records, decide as the hospital's officer", _site),
    "desk": ("let a patient in, or write down their no", _desk),
    "login": ("become somebody here, with the line that you were given", _login),
    "whoami": ("say who you are here, and where", _whoami),
    "study": ("find data sets, apply, see your studies", _study),
    "permit": ("list, show and revoke permits", _permit),
    "run": ("compute under a permit, watch it, read what came out", _run),
    "policy": ("test policies, explain a decision, see what a change would do", _policy),
    "audit": ("check a log from its first byte, or take a copy along", _audit),
    "key": ("make, show and destroy keys in a file, TPM, HSM or KMS", _key),
    "bench": ("measure one of the figures that we claim", _bench),
    "demo": ("a hub and four hospitals on this machine", _demo),
}
