"""`paroma bench withdraw`: patients say no through the portal while training runs.

How long until a no is acknowledged; whether a reading that began afterwards used the patient; whether a sum whose first
vote follows the no contains them. Looked up in the sites' own logs and ledgers, by code that knows nothing of consent.
Then the same with a site whose vote trusts what was read (a cached bit): the lookup must find it.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paroma.bench import defects, rows
from paroma.bench.benches import Say
from paroma.bench.four import FORMULA, Four, four
from paroma.bench.rows import Row
from paroma.kernel.errors import ParomaError
from paroma.lab import heart
from paroma.lab.demo.federation import HOSPITALS
from paroma.lab.patient import Browser
from paroma.sdk.study import Study
from paroma.trust.audit.entries import Entry

HONEST: Final = ("cleveland", "long-beach")  # they have patients enough to lose some and stay above the floor
EACH: Final = 25  # withdrawals a site
PLANTED: Final = 40
PAUSE_SECONDS: Final = 0.15
STEPS: Final = 12
EPSILON: Final = 8.0
QUESTIONS: Final = 60
RUN_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """A withdrawal. entry: its number in the site's log. seconds: until acknowledged. at: when that was, unix s."""

    site: str
    patient: str
    entry: int
    seconds: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Readings that began after the acknowledgement and used the patient; sums voted for after the no, with them in it;
    first votes looked at.
    """

    reads: int
    sums: int
    votes: int


def measure(say: Say) -> tuple[Row, ...]:
    """Withdrawals at honest sites, then at one with the defect. Raises ParomaError."""
    with four(say) as running:
        say("patients say no while training runs")
        noes = _withdraw_during(running, HONEST, EACH, "Withdrawals")
        found = [look(running, key, [no for no in noes if no.site == key]) for key in HONEST]
        say("the same at a site that trusts what was read")
        site = running.running.sites["budapest"]
        site.stop()
        site.command = defects.command("cached-bit", running.running.site_folder("budapest"))
        running.running.start_sites("budapest")
        running.await_online()
        planted = look(running, "budapest", _withdraw_during(running, ("budapest",), PLANTED, "Withdrawals again"))
    slowest = sorted(no.seconds for no in noes)
    return (
        rows.bound("withdrawals through the portal while training runs", len(noes), "", ">=", len(HONEST) * EACH),
        rows.bound("acknowledgement, p99", 1000 * slowest[int(0.99 * (len(slowest) - 1) + 0.999)], "ms", "<=", 1000),
        rows.printed("acknowledgement, median", 1000 * slowest[len(slowest) // 2], "ms"),
        rows.bound("readings after the acknowledgement", sum(one.reads for one in found), "", "==", 0),
        rows.bound("sums whose first vote follows the no, with the patient in it", sum(one.sums for one in found), "",
                   "==", 0),
        rows.bound("first votes that follow a no", sum(one.votes for one in found), "", ">=", 1),
        rows.caught("a vote that trusts the bit as it was read", planted.sums > 0),
    )  # fmt: skip


def look(running: Four, key: str, noes: Sequence[No]) -> Found:
    """What a site's log and ledger say of these patients."""
    log, database = running.site_log(key), running.running.site_folder(key) / "site.db"
    begun: dict[str, float] = {}  # run: when the latest decision to take part fell
    made: dict[str, tuple[float, frozenset[str]]] = {}  # attempt's entry: when the reading began, who was read
    for entry in log:
        run = str(entry.facts.get("run"))
        if entry.kind == "allowed" and entry.facts.get("action") == "TakePart":
            begun[run] = entry.at
        elif entry.kind == "contribution-made":
            place = run, int(str(entry.facts["step"])), int(str(entry.facts["attempt"]))
            made[str(entry.facts["entry"])] = begun[run], _read(database, place)
    reads = sum(no.patient in who for no in noes for began, who in made.values() if began > no.at)
    voted = _first_votes(log)
    after = [(no, attempt) for no in noes for attempt, number in voted.items() if number > no.entry]
    return Found(reads=reads, sums=sum(no.patient in made[attempt][1] for no, attempt in after), votes=len(after))


def _first_votes(log: Iterable[Entry]) -> dict[str, int]:
    voted: dict[str, int] = {}
    for number, entry in enumerate(log):
        if entry.kind == "vote-signed":
            voted.setdefault(str(entry.facts["entry"]), number)
    return voted


def _read(database: Path, place: tuple[str, int, int]) -> frozenset[str]:
    """The patients whose rows were read for one attempt, by the site's own ledger."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        cohort, bits = opened.execute(
            "select cohort, rows from rights_uses where run = ? and round = ? and attempt = ?", place
        ).fetchone()
        whose = opened.execute("select row, patient from rights_rows where cohort = ?", (cohort,)).fetchall()
    on = int.from_bytes(bits, "little")
    return frozenset(patient for row, patient in whose if on >> row & 1)


def _withdraw_during(running: Four, keys: Sequence[str], each: int, title: str) -> list[No]:
    """Train again and again; meanwhile patients of these sites say no, one after the other."""
    browsers = [(key, patient, _browser(running, key, patient)) for patient, key in _patients(keys, each)]
    study = running.agree(title, ("logistic",), questions=QUESTIONS, epsilon=EPSILON)
    done, training = threading.Event(), _Training(study)
    thread = threading.Thread(target=training.until, args=(done,), name="training", daemon=True)
    thread.start()
    noes = []
    try:
        training.began.wait(RUN_SECONDS)
        for key, patient, browser in browsers:
            receipt = browser.withdraw()
            noes.append(No(site=key, patient=patient, entry=receipt.entry, seconds=receipt.seconds, at=time.time()))
            browser.close()
            time.sleep(PAUSE_SECONDS)
    finally:
        done.set()
        thread.join(RUN_SECONDS)
    if training.rounds == 0:
        raise ParomaError(f"no training ran meanwhile: {training.why}", do="run the bench again on a quiet machine")
    return noes


class _Training:
    """Regressions one after the other, each with a ridge of its own."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.began = threading.Event()
        self.rounds = 0
        self.why = ""

    def until(self, done: threading.Event) -> None:
        """Train until somebody says it is enough, or the budget is spent."""
        asked = 0
        while not done.is_set():
            asked += 1
            try:
                run = self._study.logistic(FORMULA, ridge=asked / 1000, steps=STEPS)
                for report in run.reports(seconds=RUN_SECONDS):
                    if report.progress:
                        self.began.set()
                self.rounds += len(run.report.progress)
                self.why = run.report.reason or self.why
                if run.report.status != "finished":
                    return
            except ParomaError as problem:
                self.why = problem.message
                return
            finally:
                if done.is_set() or self.why:
                    self.began.set()


def _patients(keys: Sequence[str], each: int) -> list[tuple[str, str]]:
    """Patients with complete rows, alternating between the sites."""
    named = {hospital.key: hospital.heart for hospital in HOSPITALS}
    complete = [row for row in heart.rows() if row.complete]
    lists = [[str(row.patient) for row in complete if row.hospital == named[key]][:each] for key in keys]
    return [
        (patient, key) for together in zip(*lists, strict=True) for patient, key in zip(together, keys, strict=True)
    ]


def _browser(running: Four, key: str, patient: str) -> Browser:
    from paroma.site import commands

    browser = Browser(commands.patient_link(running.running.site_folder(key), patient))
    browser.withdraw_form()
    return browser
