"""The pages of studies: what was applied for, how each permit stands, and one permit as a page that can be printed."""

from dataclasses import dataclass

from paroma.web.kit.pages import render


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """An application. state: as at the hub, and `ended` for a permit whose term is over. ends: unix s. next: what to do now."""

    permit: str
    study: str
    title: str
    asked_by: str
    state: str
    signed: int
    asked: int
    ends: float
    next: str


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """One hospital's no: its rule, the fact, what would pass."""

    hospital: str
    policy: str
    because: str
    to_change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitView:
    """A permit on its page. hospitals: title and `signed` or `waiting`. runs: those that this person may read."""

    permit: str
    study: str
    title: str
    state: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    protection: tuple[tuple[str, str], ...]
    digest: str
    hospitals: tuple[tuple[str, str], ...]
    refusals: tuple[No, ...]
    runs: tuple[tuple[str, str, float], ...]
    next: str
    address: str


def studies_page(rows: tuple[StudyRow, ...], *, own: bool, federation: str, person: str, release: str) -> str:
    """GET /studies. own: whether these are the studies of whoever looks."""
    return render(
        "console/studies.html", rows=rows, own=own, federation=federation, person=person, release=release, refresh=None
    )


def permit_page(view: PermitView, *, federation: str, person: str, release: str) -> str:
    """GET /permits/{permit}"""
    return render("console/permit.html", view=view, federation=federation, person=person, release=release, refresh=None)
