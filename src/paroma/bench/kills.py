"""`paroma bench kill`: kill -9 of hub, sites and workers at random moments of runs, again and again.

One kill in six hits the hub, three a site, two a worker: whichever is drawn, at a random moment while a run is open, also
while it is still coming back from the kill before. Two may be down at once; after each six a question must be answered.
Before a kill the logs are read, as anybody may; in the end they must still hold these entries. Acknowledged withdrawals
must stand where their receipts say, opened runs and reported answers in the hub's log. Nothing may be let out twice for one
attempt, no question answered twice, and each contribution's debit must be in its site's budget.

Then three sites with a defect each run and are killed likewise; the same look-up must find each.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Final

import httpx
import psutil

from paroma.bench import defects, rows
from paroma.bench.benches import Say
from paroma.bench.four import Four, four
from paroma.bench.rows import Row
from paroma.bench.told import Going, Watched, debts, ledger_of, missing, twice, unknown
from paroma.bench.training import Training
from paroma.kernel.errors import BadInput, ParomaError, Unavailable
from paroma.lab import heart
from paroma.lab.demo.federation import HOSPITALS
from paroma.lab.patient import Browser
from paroma.lab.processes import LOOK_SECONDS, START_SECONDS, Program, listening, until
from paroma.site import commands

KILLS: Final = 300
SEED: Final = 20261124
KINDS: Final = ("hub", "site", "site", "site", "worker", "worker")
PAUSE_SECONDS: Final = 2.0  # between two kills, in the mean
MOST_DOWN: Final = 2  # with more of them away no round would ever be answered, least of all on a busy machine
WITHDRAW_EVERY: Final = 3  # kills of a site that follow an acknowledged withdrawal at once
MOST_NOES: Final = 15  # at one site: its cohort must stay above the floor
RUN_SECONDS: Final = 120.0
TRIES: Final = 12  # kills until a planted defect must have shown itself


@dataclass(slots=True)
class Tally:
    """What was done. kills: by kind. hit: by program. asked: kills while a question was open. returns: s from a kill until
    the program listens again. noes: acknowledged withdrawals by site, (patient, entry).
    """

    kills: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    returns: list[float] = field(default_factory=list)
    noes: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    withheld: int = 0  # withdrawals that were not acknowledged because the site did not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the look-up found afterwards."""

    gone: int
    noes: int
    unknown: int
    twice: int
    undebited: int
    again: int
    idle: int
    read: int  # entries that were read before a kill, of all logs


def measure(say: Say, kills: int | None = None) -> tuple[Row, ...]:
    """Kill, look, and kill again; then the planted defects. kills: fewer than the claim needs, for a short run.

    Raises BadInput, ParomaError.
    """
    wanted = KILLS if kills is None else kills
    if wanted < 1:
        raise BadInput(f"{wanted} kills show nothing", do="ask for one at least")
    patients = _patients()
    with four(say) as running:
        killer, training = Killer(running, random.Random(SEED), patients), Training(running)
        training.start()
        for number in range(wanted):
            killer.kill()
            if (number + 1) % 10 == 0:
                say(
                    f"{number + 1} kills, {training.heard.finished} runs finished, {len(training.heard.answers)} rounds"
                )
        training.stop()
        meanwhile = len(training.heard.answers)
        killer.settle()
        running.await_online()
        training.once()  # in the end everything works
        until(lambda: _quiet(running), seconds=RUN_SECONDS, sentence="the sites did not settle")
        _stop_sites(running)
        found = _looked_up(running, killer, training)
        running.running.start_sites()
        say("planting defects")
        planted = (
            rows.caught("a site computes its contribution again on retry", _computes_again(running, "cleveland") > 0),
            rows.caught("a site debits its budget after the numbers have left", _debits_late(running, "budapest") > 0),
            rows.caught("a site acknowledges before anything is durable",
                        _writes_behind(running, "long-beach", patients["long-beach"].pop()) > 0),
        )  # fmt: skip
    return (*_rows(killer.tally, training.heard.finished, meanwhile, found, wanted), *planted)


def _rows(tally: Tally, finished: int, meanwhile: int, found: Found, wanted: int) -> tuple[Row, ...]:
    total = tally.kills.total()
    lost = found.gone + found.noes + found.unknown
    noes = sum(map(len, tally.noes.values()))
    short = "" if wanted >= KILLS else f", a short run of {wanted}"
    never = [name for name in ("hub", *tally.noes, "worker") if not tally.hit[name]]
    return (
        rows.bound(f"kill -9 during runs{short} ({_words(tally.kills)})", total, "kills", ">=", KILLS),
        rows.printed("of them while a question was open", tally.asked, "kills"),
        rows.bound("kinds of program that were never hit (hub, each site, workers)", len(never), "", "==", 0),
        rows.printed("from a kill until the program listens again, median", median(tally.returns or [0.0]), "s"),
        rows.printed("runs finished meanwhile", finished, ""),
        rows.bound("rounds answered meanwhile", meanwhile, "", ">=", 1),
        rows.printed("log entries read before a kill and looked up afterwards", found.read, ""),
        rows.bound("withdrawals acknowledged and followed at once by kill -9", noes, "", ">=", 1),
        rows.bound("acknowledged events lost", lost, "", "==", 0),
        rows.bound("numbers disclosed twice", found.twice, "", "==", 0),
        rows.bound("contributions that their site's budget does not hold", found.undebited, "", "==", 0),
        rows.bound("attempts debited twice", found.again, "", "==", 0),
        rows.printed("debits after which nothing left (spent for nothing)", found.idle, ""),
    )


class Killer:
    """Kills and starts again. Everything that it starts is started from the main thread, as `Program.start` asks."""

    def __init__(self, running: Four, draw: random.Random, patients: Mapping[str, list[str]]) -> None:
        self.tally = Tally(noes={key: [] for key in running.sites})
        self._running = running
        self._draw = draw
        self._patients = patients
        self._programs: dict[str, Program] = {"hub": running.running.hub, **running.running.sites}
        self._coming: dict[str, float] = {}  # name: when it was killed
        self._going = Going()
        self._deck: list[str] = []  # what is still to be drawn of six kills
        hub = running.running.folder / "hub" / "hub.db"
        self.logs = {"hub": Watched(hub, "federation")} | {
            key: Watched(running.running.site_folder(key) / "site.db", "site") for key in running.sites
        }

    def kill(self) -> None:
        """One kill, at a random moment while a run is open. Raises ParomaError when nothing goes on any more."""
        if not self._deck:
            answered, self._deck = self._going.answered, self._draw.sample(KINDS, len(KINDS))
            self._await(lambda: self._going.answered > answered, "no question was answered")
        self._pass(self._draw.expovariate(1 / PAUSE_SECONDS))
        self._await(lambda: len(self._coming) < MOST_DOWN, "nothing came back")
        self._await(lambda: bool(self._going.runs), "no run was opened")
        kind = self._deck.pop()
        name = "hub" if kind == "hub" else self._draw.choice(self._running.sites)
        if kind == "worker":
            while not self._kill_below(name):
                self._pass(0.1)
                name = self._draw.choice(self._running.sites)
        else:
            if kind == "site" and name not in self._coming and (self.tally.kills["site"] + 1) % WITHDRAW_EVERY == 0:
                self._withdraw(name)
            self._kill(name)
        self.tally.kills[kind] += 1
        self.tally.hit["worker" if kind == "worker" else name] += 1
        self.tally.asked += bool(self._going.questions)

    def settle(self) -> None:
        """Until everything that was killed is back."""
        while self._coming:
            self._pass(0.1)

    def _pass(self, seconds: float) -> None:
        """Let time pass; look after what comes back."""
        ends = time.monotonic() + seconds
        while True:
            for name, killed in list(self._coming.items()):
                if listening(self._running.running.ports[name]):
                    self.tally.returns.append(time.monotonic() - killed)
                    del self._coming[name]
                elif not self._programs[name].running or time.monotonic() - killed > START_SECONDS:
                    self._programs[name].await_ready(partial(listening, self._running.running.ports[name]), seconds=1)
            left = ends - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_SECONDS))

    def _await(self, what: Callable[[], bool], otherwise: str) -> None:
        """Until it is so, reading the hub's log meanwhile. Raises Unavailable."""
        ends = time.monotonic() + RUN_SECONDS
        while True:
            if "hub" not in self._coming:
                self._going.take(self.logs["hub"].look())
            if what():
                return
            if time.monotonic() > ends:
                raise Unavailable(f"{otherwise} within {RUN_SECONDS:g} s", do="run the bench on a quieter machine")
            self._pass(0.1)

    def _kill(self, name: str) -> None:
        if name not in self._coming:
            new = self.logs[name].look()
            if name == "hub":
                self._going.take(new)
        self._programs[name].kill()
        self._coming[name] = time.monotonic()
        self._programs[name].start(lambda: True)

    def _kill_below(self, name: str) -> bool:
        """One process below a site: the walls' builder, the zygote, or a worker of this moment."""
        if name in self._coming:
            return False
        with suppress(psutil.Error):
            below = psutil.Process(self._programs[name].pid).children(recursive=True)
            if below:
                self._draw.choice(below).kill()
                return True
        return False

    def _withdraw(self, name: str) -> None:
        if len(self.tally.noes[name]) >= MOST_NOES:
            return
        patient = self._patients[name].pop()
        entry = _no(commands.patient_link(self._running.running.site_folder(name), patient))
        if entry is None:
            self.tally.withheld += 1
        else:
            self.tally.noes[name].append((patient, entry))


def _no(link: str) -> int | None:
    """A patient says no; the entry on her receipt, or None: not acknowledged, so nothing was promised."""
    with suppress(ParomaError, httpx.HTTPError), Browser(link) as browser:
        browser.withdraw_form()
        return browser.withdraw().entry
    return None


def _looked_up(running: Four, killer: Killer, training: Training) -> Found:
    logs = {key: running.site_log(key) for key in running.sites}
    hub = running.federation_log()
    owed = [debts(ledger_of(running.running.site_folder(key)), log) for key, log in logs.items()]
    return Found(
        gone=sum(log.gone() for log in killer.logs.values()),
        noes=sum(missing(killer.tally.noes[key], log) for key, log in logs.items()),
        unknown=unknown(training.heard.runs, training.heard.answers, hub),
        twice=twice(hub, logs),
        undebited=sum(one.undebited for one in owed),
        again=sum(one.again for one in owed),
        idle=sum(one.idle for one in owed),
        read=sum(len(log.seen) for log in killer.logs.values()),
    )


@contextmanager
def _defective(running: Four, key: str, name: str) -> Iterator[Program]:
    """One site with a planted defect in place of the honest one, dead afterwards: what it has forgotten, others know."""
    site = running.running.sites[key]
    honest = site.command
    site.stop()
    site.command = defects.command(name, running.running.site_folder(key))
    running.running.start_sites(key)
    try:
        yield site
    finally:
        site.kill()
        site.command = honest


def _computes_again(running: Four, key: str) -> int:
    """Numbers that a site disclosed twice which computes its contribution again after each kill."""
    before = _twice_now(running)
    with _trained(running), _defective(running, key, "computes-again") as site:
        for _ in range(TRIES):
            _await_contribution(running, key)
            site.kill()
            running.running.start_sites(key)
            with suppress(ParomaError):
                until(lambda: _twice_now(running) > before, seconds=3.0, sentence="nothing was disclosed twice")
                break
    running.running.start_sites(key)  # the others need it for the next permit
    return _twice_now(running) - before


def _debits_late(running: Four, key: str) -> int:
    """Contributions without a debit at a site that debits late, once it was killed right after one."""
    with _trained(running), _defective(running, key, "debits-late") as site:
        _await_contribution(running, key)
        site.kill()
    return debts(ledger_of(running.running.site_folder(key)), running.site_log(key)).undebited


def _writes_behind(running: Four, key: str, patient: str) -> int:
    """Acknowledged withdrawals that are lost with a site that acknowledges before anything is durable."""
    link = commands.patient_link(running.running.site_folder(key), patient)
    with _defective(running, key, "writes-behind") as site:
        entry = _no(link)
        site.kill()
    return 0 if entry is None else missing([(patient, entry)], running.site_log(key))


def _await_contribution(running: Four, key: str) -> None:
    """Until the site has let one more contribution out."""
    log = Watched(running.running.site_folder(key) / "site.db", "site")
    log.look()
    until(
        lambda: any(entry.kind == "contribution-made" for entry in log.look()),
        seconds=RUN_SECONDS,
        sentence=f"{key} made no contribution",
    )


def _twice_now(running: Four) -> int:
    return twice(running.federation_log(), {key: running.site_log(key) for key in running.sites})


@contextmanager
def _trained(running: Four) -> Iterator[None]:
    training = Training(running)
    training.start()
    try:
        yield
    finally:
        training.stop()


def _stop_sites(running: Four) -> None:
    for site in running.running.sites.values():
        site.stop()


def _quiet(running: Four) -> bool:
    return all(run.over for key in running.sites for run in running.running.site_seen(key).runs)


def _patients() -> dict[str, list[str]]:
    return {
        hospital.key: [str(row.patient) for row in heart.rows() if row.hospital == hospital.heart][:60]
        for hospital in HOSPITALS
    }


def _words(kills: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kills.items()))
