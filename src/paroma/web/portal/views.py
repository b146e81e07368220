"""What a patient sees: who used the records, how to say no, and the receipt. No word of the field, no script.

Each view is filled by the site from its own store; nothing here decides or counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final

from paroma.web.kit.pages import render

PURPOSES: Final[Mapping[str, str]] = {  # code of `trust.policy.purposes`: what a patient reads after "It "
    "public-health": "computed sums to protect the health of the public",
    "policy-making": "computed sums that help public offices to decide about care",
    "statistics": "computed sums for official statistics about health",
    "education": "computed sums for teaching in health care",
    "scientific-research": "computed sums for research about health",
    "product-development": "computed sums for research that leads to new products for health",
    "algorithm-training": "computed sums to train and test a computer program for health",
    "care-improvement": "computed sums that help to treat other patients better",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clinic:
    """Whose pages these are: a patient sees the clinic's name first. phone, hours: of who answers questions; empty: nobody is
    named. zone: in which the clinic tells times.
    """

    name: str
    phone: str
    hours: str
    zone: tzinfo = UTC

    @property
    def dials(self) -> str:
        """The number as a telephone takes it (RFC 3966); empty where it is none, such as an extension of the house."""
        number = "".join(c for c in self.phone if c not in " -./()")
        return number if number.removeprefix("+").isdecimal() and number.isascii() else ""

    @property
    def times(self) -> str:
        """`Times are those of Berlin.`, for what is printed and taken along; empty where no place names the zone."""
        place = getattr(self.zone, "key", None)
        return f"Times are those of {place.rpartition('/')[2].replace('_', ' ')}." if place else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyUse:
    """One study that used, or is using, the records."""

    study: str  # id, for the form
    title: str
    asked_by: str
    purpose: str  # a clause after "It ", one of PURPOSES
    people: int
    at: float  # seconds since 1970
    rule: str  # a sentence: "Allowed by your yes of 3 May 2026"
    counted: str  # a sentence: "You were counted in 4 rounds (1 to 4) on 3 May 2026."
    entries: tuple[int, ...]  # where the clinic's log says so
    genuine: bool | None  # None: could not be checked just now
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the patient has decided, as it stands."""

    research: bool
    sentence: str  # "yes to research at universities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is said after a no, and can be printed."""

    number: str
    said_at: float
    seconds: float
    covers: str
    before: tuple[str, ...]  # what had already happened, a sentence each
    entry: int
    checked: bool  # whether the federation's hub holds a head of the clinic's log that contains the entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Someone:
    """The patient who is looking."""

    name: str


def home(clinic: Clinic, someone: Someone, uses: tuple[StudyUse, ...], choice: Choice) -> str:
    """GET /me"""
    return render("portal/home.html", clinic=clinic, someone=someone, uses=uses, choice=choice)


def uses_page(clinic: Clinic, someone: Someone, uses: tuple[StudyUse, ...]) -> str:
    """GET /me/uses"""
    return render("portal/uses.html", clinic=clinic, someone=someone, uses=uses)


def withdraw_page(
    clinic: Clinic, someone: Someone, uses: tuple[StudyUse, ...], choice: Choice, *, form_key: str
) -> str:
    """GET /me/withdraw: the way to say no, and after a no to everything the way back."""
    running = tuple({use.study: use for use in uses if use.running}.values())
    return render(
        "portal/withdraw.html", clinic=clinic, someone=someone, running=running, choice=choice, form_key=form_key
    )


def receipt_page(clinic: Clinic, someone: Someone, receipt: Receipt, *, form_key: str) -> str:
    """GET /me/receipts/{number}"""
    return render("portal/receipt.html", clinic=clinic, someone=someone, receipt=receipt, form_key=form_key)


def signed_in_page(clinic: Clinic, *, to: str) -> str:
    """After a login at a provider: leads on to `to` by itself."""
    return render("portal/signed-in.html", clinic=clinic, to=to)


def closed_page(clinic: Clinic, *, headline: str, what_to_do: str) -> str:
    """A link that has been used, has run out or never was: all look the same."""
    return render("portal/closed.html", clinic=clinic, headline=headline, what_to_do=what_to_do)
