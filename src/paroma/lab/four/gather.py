"""What the four people see at this moment, each asked through their own door with their own key or session.

Nothing is remembered between two looks but the open connections: a card says what its person's program says now.
"""

import re
import time
from dataclasses import dataclass
from typing import Final, Protocol

from paroma.lab.four.page import Event, Four
from paroma.lab.patient import Browser, PageWrong
from paroma.learn.runs.report import RunReport
from paroma.sdk.connection import Connection
from paroma.sdk.officer import Officer, Requested
from paroma.sdk.talk import Talk
from paroma.web.kit.charts import Curve
from paroma.web.kit.pages import clock, clock12, day

JUST_SECONDS: Final = 120.0  # how long a no counts as having just been said
_HEADLINE: Final = re.compile(r'<h1 class="means">(.*?)</h1>', re.DOTALL)
_CHOICE: Final = re.compile(r"Now: ([^<]+)<")


class Doors(Protocol):
    """How each of the four gets in."""

    def patient_link(self) -> str:
        """A single-use link of the desk."""

    def officer_talk(self) -> Talk:
        """The officer's connection to their site."""

    def scientist_talk(self) -> Talk:
        """The scientist's connection to the hub."""

    def auditor_talk(self) -> Talk:
        """The auditor's connection to the hub."""


@dataclass(slots=True)
class Look:
    """The four, looked at again and again. Blocking; one call at a time."""

    doors: Doors
    hospitals: str
    _browser: Browser | None = None
    _officer: Officer | None = None
    _scientist: Connection | None = None
    _auditor: Connection | None = None
    _said_yes: bool = False
    _said_no: float | None = None  # unix s; None also where she had said no before the first look

    def four(self) -> Four:
        """The four cards. Raises what the doors raise."""
        home, uses = self._patient()
        choice = _found(_CHOICE, home, "yes to research")
        no = choice.startswith("no")
        if no and self._said_yes:
            self._said_no = time.time()  # between the look before and this one
        elif not no:
            self._said_no = None
        self._said_yes = not no
        request = self._request()
        run = self._run()
        entries = self._log_size()
        since = self._said_no
        return Four(
            study=run.study if run else "no study yet",
            hospitals=self.hospitals,
            status=run.status if run else "waiting",
            headline="Maria said no. Four people see what that changed."
            if no
            else "Four people, one study. What one does, the others see.",
            since=since,
            patient="Maria Novak",
            patient_place="patient, Cleveland",
            patient_means="No study reads your records any more." if no else _plain(_found(_HEADLINE, home, "")),
            patient_just=f"You said no at {clock12(since)}. The clinic has confirmed it."
            if since is not None and _fresh(since)
            else "",
            patient_more=uses,
            patient_page="/maria",
            officer="Ruth Keller",
            officer_place="privacy officer, Cleveland",
            officer_means=f"{request.patients} patients may be used in this study today."
            if request is not None and request.patients is not None
            else "Nobody asks for records today.",
            officer_just="One fewer than before. Nothing to do." if _fresh(since) else "",
            officer_facts=() if request is None else _facts(request),
            scientist="Lena Vogt",
            scientist_place="scientist, Basel",
            scientist_means=_scientist(run),
            scientist_just="Unchanged. One person more or less never shows here." if _fresh(since) else "",
            scientist_curve=_curve(run),
            scientist_page="/run",
            auditor="Jonas Brandt",
            auditor_means=f"{entries} entries stand in the federation log, and each continues the one before.",
            auditor_events=_events(run),
            auditor_proof=_proof(run),
            rails=_rails(run, since, no=no),
        )

    def patient_link(self) -> str:
        """A fresh link to her pages, for whoever plays her."""
        return self.doors.patient_link()

    def run_link(self) -> str:
        """A fresh link to the newest run, for whoever plays the scientist."""
        run = self._run()
        return self._lena().link(f"/runs/{run.run}" if run else "/")

    def close(self) -> None:
        """End all connections."""
        for one in (self._browser, self._scientist, self._auditor):
            if one is not None:
                one.close()
        if self._officer is not None:
            self._officer.talk.close()

    def _patient(self) -> tuple[str, str]:
        """Her home page, and what her newest use says."""
        for again in (False, True):
            if self._browser is None:
                self._browser = Browser(self.doors.patient_link())
            try:
                home, uses = self._browser.again(), self._browser.uses()
            except PageWrong:
                if again:
                    raise
                self._browser.close()  # her session has ended after 15 minutes: another link from the desk
                self._browser = None
            else:
                return home, _sentence_of(uses)
        raise AssertionError

    def _request(self) -> Requested | None:
        if self._officer is None:
            self._officer = Officer(self.doors.officer_talk())
        valid = [one for one in self._officer.requests() if one.state == "valid"]
        return valid[0] if valid else None

    def _lena(self) -> Connection:
        if self._scientist is None:
            self._scientist = Connection(self.doors.scientist_talk())
        return self._scientist

    def _run(self) -> RunReport | None:
        runs = self._lena().runs()
        return runs[0].report if runs else None

    def _log_size(self) -> int:
        if self._auditor is None:
            self._auditor = Connection(self.doors.auditor_talk())
        return int(self._auditor.log_file("checkpoint").split(b"\n")[1])


def _facts(request: Requested) -> tuple[tuple[str, str], ...]:
    permit = request.permit
    return (
        ("Study", permit.title),
        ("For", permit.purpose),
        ("Asked by", request.asked_by),
        ("Permit", f"until {day(permit.ends)}"),
    )


def _scientist(run: RunReport | None) -> str:
    if run is None:
        return "No run yet."
    where = (
        f"round {run.step + 1} of at most {run.steps}" if run.ended is None else f"{len(run.progress)} rounds answered"
    )
    return f"{run.query.partition('~')[0].strip()} in four hospitals, {where}."


def _curve(run: RunReport | None) -> Curve | None:
    values = () if run is None else tuple(one.value for one in run.progress if one.value is not None)
    if run is None or len(values) < 2:  # one point is no curve
        return None
    return Curve(
        title=f"{run.measure} by round",
        description=f"{run.measure}: {values[0]:.3g} at the start, {values[-1]:.3g} after {len(values)} rounds",
        unit=run.measure,
        values=values,
        rounds=run.steps if run.ended is None else len(values) - 1,
        ident="four",
    )


def _events(run: RunReport | None) -> tuple[Event, ...]:
    return () if run is None else tuple(Event(what=one.what, at=one.at) for one in run.story[-3:])


def _proof(run: RunReport | None) -> str:
    if run is None or run.proof is None or not run.proof.cosigned:
        return ""
    return f"entries {run.proof.first} to {run.proof.last}, seen by {run.proof.cosigned} hospitals"


def _rails(
    run: RunReport | None, since: float | None, *, no: bool
) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str], tuple[str, str]]:
    said = ("She says no" if no else "She may say no at any time", "" if since is None else clock(since))
    answered = clock(run.progress[-1].at) if run is not None and run.progress else ""
    logged = clock(run.story[-1].at) if run is not None and run.story else ""
    return (
        said,
        ("Her clinic counts who may be used", "now"),
        ("The hospitals answer together", answered),
        ("The log proves the order", logged),
    )


def _fresh(since: float | None) -> bool:
    return since is not None and time.time() - since < JUST_SECONDS


def _sentence_of(uses: tuple[str, ...]) -> str:
    found = re.search(r"You (?:were|have not been) counted[^.]*\.", uses[0]) if uses else None
    return found[0] if found else ""


def _found(what: re.Pattern[str], text: str, otherwise: str) -> str:
    found = what.search(text)
    return found[1].strip() if found else otherwise


def _plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()
