"""One screen that plays four people, each with what their own page or command says at this moment.

The laboratory asks each program as that person would, with that person's key or session; there is no other door.
"""

from dataclasses import dataclass

from jinja2 import ChoiceLoader, PackageLoader, PrefixLoader
from markupsafe import Markup

from paroma.web.kit.charts import Curve, small_curve
from paroma.web.kit.pages import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the auditor's card. `at` is unix seconds."""

    what: str
    at: float
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Four:
    """What the four see. `since` is when she said no (unix seconds), or None while nobody has."""

    study: str
    hospitals: str
    status: str
    headline: str
    since: float | None
    patient: str
    patient_place: str
    patient_means: str
    patient_just: str
    patient_more: str
    patient_page: str
    officer: str
    officer_place: str
    officer_means: str
    officer_just: str
    officer_facts: tuple[tuple[str, str], ...]
    scientist: str
    scientist_place: str
    scientist_means: str
    scientist_just: str
    scientist_curve: Curve | None
    scientist_page: str
    auditor: str
    auditor_means: str
    auditor_events: tuple[Event, ...]
    auditor_proof: str
    rails: tuple[tuple[str, str], tuple[str, str], tuple[str, str], tuple[str, str]]  # what happened, and when


def render_page(four: Four, *, release: str) -> str:
    """GET / of the demo's own page."""
    page = environment().overlay(
        loader=ChoiceLoader([PrefixLoader({"four": PackageLoader("paroma.lab.four")}), environment().loader])  # type: ignore[list-item]
    )
    drawn = small_curve(four.scientist_curve) if four.scientist_curve else Markup()
    return page.get_template("four/four.html").render(four=four, curve_svg=drawn, release=release, refresh="/")
