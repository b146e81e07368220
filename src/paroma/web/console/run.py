"""The page of one run: how far it is, what was disclosed, which hospitals stand behind it, and what proves it.

Counts come in as the permit tells them ("about 740"), the same as in every other answer. Who sat out a round is not shown.
"""

from dataclasses import dataclass

from markupsafe import Markup

from paroma.web.kit.charts import Curve, Forest, curve, forest, strip
from paroma.web.kit.pages import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A hospital that takes part."""

    name: str
    status: str  # online or offline


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """Epsilon of the permit: spent, held for the questions to come, and the most there is. delta beside it."""

    spent: float
    held: float
    most: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened and stands in the log."""

    what: str
    at: float
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A line of a table of results."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What the page says. `headline` is the finding, not the page's name."""

    run: str
    study: str
    status: str
    started: float
    headline: str
    curve: Curve | None
    curve_finding: str
    forest: Forest | None
    forest_finding: str
    table_head: tuple[str, ...]
    table: tuple[Figure, ...]
    table_finding: str
    numbers_each_round: int
    rounds_done: int
    noise: str
    budget: BudgetLine | None
    doors: tuple[Door, ...]
    least_owners: int
    events: tuple[Event, ...]
    entries: tuple[int, int] | None
    cosigned_by: int
    command: str
    refresh: str | None  # where the live part is fetched from again; None when nothing changes any more


def run_page(view: RunView, *, federation: str, person: str, release: str) -> str:
    """GET /runs/{run}"""
    return render(
        "console/run.html",
        view=view,
        federation=federation,
        person=person,
        release=release,
        refresh=view.refresh,
        curve_svg=curve(view.curve) if view.curve else Markup(),
        forest_svg=forest(view.forest) if view.forest else Markup(),
        strip_svg=_strip(view.budget) if view.budget else Markup(),
    )


def runs_page(rows: tuple[tuple[str, str, str, float], ...], *, federation: str, person: str, release: str) -> str:
    """GET /: the runs, newest first, as (run, study title, status, started)."""
    return render("console/runs.html", rows=rows, federation=federation, person=person, release=release, refresh=None)


def closed_page(*, federation: str, headline: str, what_to_do: str, release: str, login: bool = False) -> str:
    """A link that has been used, has run out or never was: all look the same. login: whether one can sign in at a provider."""
    return render(
        "console/closed.html",
        federation=federation,
        headline=headline,
        what_to_do=what_to_do,
        release=release,
        login=login,
        person="",
    )


def signed_in_page(*, federation: str, person: str, to: str, release: str) -> str:
    """After a login at a provider: leads on to `to` by itself."""
    return render("console/signed-in.html", federation=federation, person=person, to=to, release=release, refresh=None)


def _strip(budget: BudgetLine) -> Markup:
    return strip(
        spent=budget.spent,
        held=budget.held,
        most=budget.most,
        ident="budget",
        title=f"Privacy budget: epsilon {budget.spent:.2f} spent, {budget.held:.2f} held, of {budget.most:g} in the permit",
    )
