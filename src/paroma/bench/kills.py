"""`paroma bench kill`: kill -9 of hub, sites and workers at random moments of runs, again and again.

Before each kill the logs are read, as anybody may; afterwards they must still begin with the same entries. Patients'
acknowledged withdrawals must stand where their receipts say. Nothing may be let out twice for one attempt, no question
answered twice, and each site's budget must be the one that its log tells. `PAROMA_BENCH_KILLS` sets how many (300).
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psutil

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.four import FORMULA, Four, four
from paroma.bench.rows import Row
from paroma.kernel.errors import ParomaError
from paroma.lab import heart
from paroma.lab.demo.federation import HOSPITALS
from paroma.lab.patient import Browser
from paroma.lab.processes import listening, until
from paroma.sdk.study import Study
from paroma.trust.audit.entries import Entry

KILLS: Final = 300
WITHDRAW_EVERY: Final = 10  # kills of a site that follow an acknowledged withdrawal at once
LONGEST_WAIT: Final = 3.0  # seconds until the next kill
RUN_SECONDS: Final = 60.0
EPSILON: Final = 8.0
QUESTIONS: Final = 60
STEPS: Final = 12
DEFECT: Final = (
    "import sys; from pathlib import Path; from paroma.trust.audit.journal import Journal; write = Journal.write\n"
    "Journal.write = lambda s, tx, kind, **f: 0 if kind == 'withdrawal' else write(s, tx, kind, **f)\n"
    "from paroma.site import commands; commands.run(Path(sys.argv[1]))"
)
"""A site that acknowledges a withdrawal without writing it into its log."""


@dataclass(slots=True)
class Tally:
    """Kills by victim; acknowledged withdrawals by site: (patient, entry); log entries that were gone afterwards."""

    kills: Counter[str] = field(default_factory=Counter)
    noes: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    gone: int = 0
    withheld: int = 0  # withdrawals that were not acknowledged because the site did not answer


def measure(say: Say) -> tuple[Row, ...]:
    """Kill, look, and kill again; then the planted defects. Raises ParomaError."""
    wanted = int(os.environ.get("PAROMA_BENCH_KILLS", str(KILLS)))
    draw = random.Random(20261124)
    with four(say) as running:
        tally = Tally(noes={key: [] for key in running.sites})
        training = _Training(running)
        training.start()
        patients = _patients()
        for number in range(wanted):
            _kill_one(running, tally, draw, patients, withdraw=number % WITHDRAW_EVERY == 0)
            if (number + 1) % 10 == 0:
                say(f"{number + 1} kills, {training.finished} runs finished, {training.rounds} rounds answered")
        training.stop()
        running.await_online()
        training.once()  # in the end everything works, and every site has contributed after its last kill
        until(lambda: _quiet(running), seconds=30, sentence="the sites did not settle")
        logs = {key: running.site_log(key) for key in running.sites}
        hub = running.federation_log()
        lost = tally.gone + sum(missing(tally.noes[key], logs[key]) for key in logs)
        budgets = {key: running.running.site_seen(key).budget for key in logs}
        apart = sum(budgets[key] != _told(logs[key]) for key in logs)
        planted = _planted(running, patients)
    total = tally.kills.total()
    acknowledged = sum(map(len, tally.noes.values()))
    again = [entry for entry in hub if entry.kind == "question-answered"][-1]
    return (
        Row(what=f"kill -9 during runs ({_words(tally.kills)})", value=total, unit="kills",
            goal=f">= {KILLS}", holds=total >= KILLS),
        rows.printed("runs finished meanwhile", training.finished, ""),
        rows.bound("rounds answered meanwhile", training.rounds, "", ">=", 1),
        rows.printed("acknowledged withdrawals followed at once by kill -9", acknowledged, ""),
        rows.bound("acknowledged events lost", lost, "", "==", 0),
        rows.bound("numbers disclosed twice", twice(hub, logs), "", "==", 0),
        rows.bound("sites whose budget is not their log's", apart, "", "==", 0),
        rows.caught("a withdrawal acknowledged without an entry in the log", planted > 0),
        rows.caught("a question answered again on retry", twice([*hub, again], logs) > 0),
    )  # fmt: skip


def missing(noes: Iterable[tuple[str, int]], log: Sequence[Entry]) -> int:
    """Acknowledged withdrawals that do not stand in the log where the receipt says."""
    return sum(entry >= len(log) or log[entry].kind != "withdrawal" for _patient, entry in noes)


def twice(hub: Sequence[Entry], logs: Mapping[str, Sequence[Entry]]) -> int:
    """Questions answered more than once at the hub; contributions and answers that a site made more than once."""
    answered = Counter((e.facts["run"], e.facts["step"]) for e in hub if e.kind == "question-answered")
    found = sum(count - 1 for count in answered.values())
    # who sat an attempt out answers it too; which question it was is then in the logs of those who contributed
    made_by = [e for log in logs.values() for e in log if e.kind == "contribution-made"]
    question = {e.facts["entry"]: (e.facts["run"], e.facts["step"]) for e in made_by}
    for log in logs.values():
        made = Counter(e.facts["entry"] for e in log if e.kind == "contribution-made")
        given = Counter(question[e.facts["entry"]] for e in log if e.kind == "answer-given")
        found += sum(count - 1 for count in (*made.values(), *given.values()))
    return found


def _kill_one(
    running: Four, tally: Tally, draw: random.Random, patients: dict[str, list[str]], *, withdraw: bool
) -> None:
    time.sleep(draw.random() * LONGEST_WAIT)
    victim = draw.choice(("hub", *running.sites, "worker"))
    programs = {"hub": running.running.hub, **running.running.sites}
    if victim == "worker":
        key = draw.choice(running.sites)
        if _kill_worker(programs[key].pid, draw):
            tally.kills[victim] += 1
            until(lambda: listening(running.running.ports[key]), seconds=30, sentence=f"{key} did not come back")
        return
    if withdraw and victim != "hub" and patients[victim]:
        _withdraw(running, tally, victim, patients[victim].pop())
    before = running.federation_log() if victim == "hub" else running.site_log(victim)
    programs[victim].kill()
    tally.kills[victim] += 1
    programs[victim].start(partial(listening, running.running.ports[victim]))
    after = running.federation_log() if victim == "hub" else running.site_log(victim)
    tally.gone += sum(old != new for old, new in zip(before, after[: len(before)], strict=False))
    tally.gone += max(0, len(before) - len(after))


def _kill_worker(pid: int, draw: random.Random) -> bool:
    """One process below the site: the walls' builder, the zygote, or a worker of this moment."""
    with suppress(psutil.Error, ProcessLookupError):
        below = psutil.Process(pid).children(recursive=True)
        if below:
            os.kill(draw.choice(below).pid, signal.SIGKILL)
            return True
    return False


def _withdraw(running: Four, tally: Tally, key: str, patient: str) -> None:
    from paroma.site import commands

    try:
        with Browser(commands.patient_link(running.running.site_folder(key), patient)) as browser:
            browser.withdraw_form()
            tally.noes[key].append((patient, browser.withdraw().entry))
    except Exception:  # noqa: BLE001  # not acknowledged: the site was just coming up, so nothing was promised
        tally.withheld += 1


class _Training:
    """Regressions one after the other, whatever is killed meanwhile."""

    def __init__(self, running: Four) -> None:
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="training", daemon=True)
        self._asked = 0
        self._study: Study | None = None
        self.finished = 0
        self.rounds = 0

    def start(self) -> None:
        """Begin."""
        self._study = self._agree()
        self._thread.start()

    def stop(self) -> None:
        """Wait for the last run."""
        self._over.set()
        self._thread.join(2 * RUN_SECONDS)

    def once(self) -> None:
        """One run that must finish, under a fresh permit. Raises ParomaError."""
        self._study = self._agree()
        run = self._study.logistic(FORMULA, ridge=0.5, steps=STEPS)
        run.wait(seconds=RUN_SECONDS)

    def _agree(self) -> Study:
        return self._running.agree("Survival", ("logistic",), questions=QUESTIONS, epsilon=EPSILON)

    def _go(self) -> None:
        while not self._over.is_set():
            self._asked += 1
            try:
                if self._study is None or self._asked % 4 == 0:
                    self._study = self._agree()
                run = self._study.logistic(FORMULA, ridge=self._asked / 1000, steps=STEPS)
                with suppress(ParomaError):
                    run.wait(seconds=RUN_SECONDS)
                self.rounds += len(run.refresh().progress)
                self.finished += run.status == "finished"
            except ParomaError:  # the hub was just killed, or an officer's site was
                time.sleep(0.2)


def _planted(running: Four, patients: dict[str, list[str]]) -> int:
    """Withdrawals that the defective site lost."""
    site = running.running.sites["cleveland"]
    site.stop()
    site.command = [sys.executable, "-c", DEFECT, running.running.site_folder("cleveland")]
    running.running.start_sites("cleveland")
    tally = Tally(noes={"cleveland": []})
    _withdraw(running, tally, "cleveland", patients["cleveland"].pop())
    site.kill()
    return missing(tally.noes["cleveland"], running.site_log("cleveland"))


def _quiet(running: Four) -> bool:
    return all(run.over for key in running.sites for run in running.running.site_seen(key).runs)


def _told(log: Iterable[Entry]) -> str:
    """The head of the budget in a site's last contribution."""
    return str([entry.facts["budget"] for entry in log if entry.kind == "contribution-made"][-1])


def _patients() -> dict[str, list[str]]:
    return {
        hospital.key: [str(row.patient) for row in heart.rows() if row.hospital == hospital.heart][:60]
        for hospital in HOSPITALS
    }


def _words(kills: Mapping[str, int]) -> str:
    return ", ".join(f"{victim} {count}" for victim, count in sorted(kills.items()))
