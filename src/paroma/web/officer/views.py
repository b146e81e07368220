"""What an officer sees at their own hospital. Counts are exact here: they are of the hospital's own patients, and stay there.

Each view is filled by the site from its own store; nothing here decides or counts. A signature is never made here: it needs the
officer's key, which no browser has, so the page gives the command and the digest that it checks.
"""

from dataclasses import dataclass
from typing import Final

from paroma.web.kit.pages import render

REASONS: Final[tuple[str, ...]] = (
    "The data is not needed for this purpose",
    "Too few patients are protected",
    "The purpose is not clear enough",
    "The permit holds too long",
    "Patients here were not told of such a use",
    "It is not needed any more",
)
"""Reasons that an officer may choose from; the applicant reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Who is looking, and at which hospital. decides: whether the buttons are for them; the gate has the last word."""

    hospital: str
    person: str
    role: str
    decides: bool
    paused: bool
    form_key: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the inbox. since: unix s; waited: since then, in words. patients: who may be used today; None: nobody asks now."""

    permit: str
    title: str
    asked_by: str
    purpose: str
    state: str
    since: float
    waited: str
    patients: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a comparison. kind: same, added, removed."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is other than in the permit that this hospital approved before, under the same study. at: unix s, when that was asked."""

    permit: str
    at: float
    lines: tuple[Line, ...]
    added: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A line of the evidence. kind: good, no, note."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request on its page. rules: why patients may not be used, and how many each. hospitals: title and whether it has signed."""

    permit: str
    title: str
    headline: str
    state: str
    since: float
    waited: str
    in_words: tuple[tuple[str, str], ...]
    patients: int
    held: int
    rules: tuple[tuple[str, int], ...]
    checks: tuple[Check, ...]
    digest: str
    change: Change | None
    reasons: tuple[str, ...]
    hospitals: tuple[tuple[str, bool], ...]
    takes_part: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Somebody of the hospital's staff. enrolled, revoked: unix s."""

    person: str
    name: str
    role: str
    enrolled: float
    revoked: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the site is. heard: when the hub was heard last, in words. logs: name, entries, how many cosigned the head, state
    (`trusted`, `not trusted`, or empty where this site has nothing to judge it by), what is said of that. walls: name, state, why.
    runs: run, permit, round.
    """

    online: bool
    heard: str
    hub: str
    owner: str
    patients: int
    budget: str
    logs: tuple[tuple[str, int, int, str, str], ...]
    walls: tuple[tuple[str, str, str], ...]
    missing: tuple[str, ...]
    runs: tuple[tuple[str, str, int], ...]
    failures: tuple[str, ...]


def inbox_page(desk: Desk, rows: tuple[Row, ...], *, chosen: str) -> str:
    """GET /officer: what is asked. chosen: the state that is shown, empty for all."""
    return render("officer/inbox.html", desk=desk, rows=rows, chosen=chosen)


def request_page(desk: Desk, view: Request, *, error: str = "", said: str = "") -> str:
    """GET /officer/requests/{permit}. error: what would pass, where the form was not filled; said: the officer's own words then."""
    return render("officer/request.html", desk=desk, view=view, reasons=REASONS, error=error, said=said)


def end_page(desk: Desk, *, permit: str, title: str, running: int, error: str = "", said: str = "") -> str:
    """GET /officer/permits/{permit}/end: asks once more before a permit ends here."""
    return render(
        "officer/end.html",
        desk=desk,
        permit=permit,
        title=title,
        running=running,
        reasons=REASONS,
        error=error,
        said=said,
    )


def staff_page(desk: Desk, rows: tuple[Member, ...]) -> str:
    """GET /officer/staff"""
    return render("officer/staff.html", desk=desk, rows=rows)


def health_page(desk: Desk, view: Health) -> str:
    """GET /officer/health"""
    return render("officer/health.html", desk=desk, view=view)


def refused_page(*, hospital: str, person: str, headline: str, why: str, what_to_do: str, release: str) -> str:
    """What was not done, why, and what would pass."""
    return render(
        "officer/refused.html",
        desk=None,
        hospital=hospital,
        person=person,
        headline=headline,
        why=why,
        what_to_do=what_to_do,
        release=release,
    )
