"""What happens to a founded federation under one seed, and what was seen of it.

A scientist asks questions; meanwhile links lose, delay, double and reorder, disks fail, machines lose power, lines are cut,
and patients withdraw. From `CALM` on nothing goes wrong any more, and every run has to come to its end.
"""

import asyncio
import json
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from paroma.data.consent.statement import EVERYTHING
from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import PatientId
from paroma.kernel.randomness import SeededRandomness
from paroma.lab.simulation import checks
from paroma.lab.simulation.checks import Seen
from paroma.lab.simulation.clock import VirtualClock
from paroma.lab.simulation.disk import SOUND, Fault, by_chance
from paroma.lab.simulation.federation import HOSPITALS, HUB, HUB_URL, Defect, Federation, no_defect
from paroma.lab.simulation.founding import JSON, Founded, caller
from paroma.lab.simulation.loop import Loop, run
from paroma.lab.simulation.network import QUIET, Faults, Internet
from paroma.learn.algorithms.query import Logistic, Outcome, Query, Statistics
from paroma.trust.channel.caller import Caller

CALM: Final = 30.0  # virtual s after the beginning: from here on nothing goes wrong
LONGEST: Final = 900.0  # virtual s within which every run has to end after that
LOOK: Final = 1.0  # s between two looks of the scientist
KILLS: Final = {Fault.KILL_BEFORE: 1.0, Fault.KILL_AFTER: 1.0}
ERRORS: Final = {Fault.FAILS_BEFORE: 1.0, Fault.FAILS_AFTER: 1.0, Fault.FULL: 0.5}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens `at` virtual seconds after the first question. what: kill, cut, or withdraw."""

    at: float
    what: str
    where: str
    lasting: float = 0.0  # s, of a cut
    patient: PatientId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What a seed decided."""

    faults: Faults
    disk_chances: dict[str, dict[Fault, float]]
    downtime: float
    slowest_worker: float
    events: tuple[Event, ...]
    queries: tuple[Query, ...]


@dataclass(slots=True, kw_only=True)
class _Course:
    """What is seen from outside while it happens."""

    runs: dict[str, str] = field(default_factory=dict)  # run -> its last status
    acknowledged: dict[tuple[str, PatientId], int] = field(default_factory=dict)  # -> entry of the site log


def plot_of(seed: int, founded: Founded) -> Plot:
    """What the seed decides. Half of the seeds have few troubles, so that a course gets far; each kind is absent in some."""
    draw = random.Random(f"{seed}/plot")
    rough = draw.random() < 0.5
    faults = Faults(
        least_delay=0.001,
        most_delay=draw.choice([0.005, 0.05, 0.4]),
        lose_request=draw.choice([0.0, 0.03, 0.15]) if rough else 0.0,
        lose_reply=draw.choice([0.0, 0.03, 0.15]) if rough else 0.0,
        double=draw.choice([0.0, 0.1]),
    )
    chances: dict[str, dict[Fault, float]] = {}
    for name in draw.sample((HUB, *HOSPITALS), draw.choice([0, 0, 1, 2])):
        kinds = draw.choice([KILLS, ERRORS])
        rate = draw.choice([0.01, 0.05])
        chances[name] = {fault: rate * share for fault, share in kinds.items()}
    events = [
        Event(draw.uniform(0, 4), "kill", name) for name in draw.choices((HUB, *HOSPITALS), k=draw.choice([0, 1, 2]))
    ]
    events += [
        Event(draw.uniform(0, 4), "cut", name, lasting=draw.choice([0.5, 5.0, 15.0]))
        for name in draw.choices(HOSPITALS, k=draw.choice([0, 0, 1, 2]))
    ]
    for name in draw.choices(HOSPITALS, k=draw.choice([0, 1, 2, 3])):
        patient = draw.choice(founded.patients[name])
        events.append(Event(draw.uniform(0, 3), "withdraw", name, patient=patient))
    statistics = Statistics(features=("age", "chol"), bins=4)
    logistic = Logistic(outcome=Outcome(feature="num"), features=("age",), ridge=1.0, steps=3)
    return Plot(
        faults=faults,
        disk_chances=chances,
        downtime=draw.choice([0.5, 5.0, 20.0]),
        slowest_worker=draw.choice([0.01, 0.3, 1.0]),
        events=tuple(sorted(events, key=lambda one: one.at)),
        queries=(logistic,) if draw.random() < 0.1 else (statistics,),
    )


def play(seed: int, founded: Founded, *, defect: Defect = no_defect) -> Seen:
    """The whole course under `seed`, and what is left of it. Raises CheckFailed where something happened that must not."""
    where = Path("/dev/shm")  # memory: what must survive survives a simulated kill, no disk is waited for
    with tempfile.TemporaryDirectory(dir=where if where.is_dir() else None, prefix="paroma-seed-") as made:
        founded.copy_to(Path(made))
        return run(seed, lambda loop: _play(loop, Path(made), founded, defect))


async def _play(loop: Loop, folder: Path, founded: Founded, defect: Defect) -> Seen:
    plot, course = plot_of(loop.seed, founded), _Course()
    internet = Internet(loop)
    federation = Federation(
        loop=loop,
        folder=folder,
        elapsed=founded.elapsed,
        authority=founded.authority,
        internet=internet,
        downtime=plot.downtime,
        slowest_worker=plot.slowest_worker,
        defect=defect,
    )
    federation.begin(HUB, *HOSPITALS)
    await federation.all_up()
    await asyncio.sleep(0.5)
    internet.faults = plot.faults
    for name, chances in plot.disk_chances.items():
        federation.plans[name] = by_chance(loop.source(f"disk/{name}"), chances)
        federation.lives[name].machine.disk.plan = federation.plans[name]
    clock = VirtualClock(loop, wrong_by=founded.elapsed)
    network, randomness = internet.network("scientist"), SeededRandomness(loop.seed, "scientist")
    scientist = caller(network, "scientist/hub", founded.scientist, HUB_URL, clock, randomness)
    began = loop.time()
    happening = [loop.create_task(_happen(federation, event, course)) for event in plot.events]
    calm = loop.create_task(_calm(federation, began + CALM))
    asking = loop.create_task(_ask_all(scientist, founded, plot, course))
    late = False
    try:
        async with asyncio.timeout(CALM + LONGEST):
            await asyncio.gather(asking, *happening)
            if not all(federation.is_up(name) for name in federation.starts):
                await calm  # a machine that is down comes back: what its newest life holds is looked at
                await federation.all_up()
    except TimeoutError:
        late = True
    calm.cancel()
    await federation.end()
    try:
        return checks.check(federation, founded, course.acknowledged, course.runs, late=late)
    finally:
        federation.close()


async def _calm(federation: Federation, at: float) -> None:
    await asyncio.sleep(at - federation.loop.time())
    federation.internet.faults = QUIET
    federation.plans.clear()
    for name in (HUB, *HOSPITALS):
        federation.internet.heal(HUB, name)
        federation.lives[name].machine.disk.plan = SOUND


async def _happen(federation: Federation, event: Event, course: _Course) -> None:
    await asyncio.sleep(event.at)
    federation.loop.note(f"{event.what} {event.where}")
    if event.what == "kill":
        federation.kill(event.where)
    elif event.what == "cut":
        federation.internet.cut(HUB, event.where)
        await asyncio.sleep(event.lasting)
        federation.internet.heal(HUB, event.where)
    elif event.patient is not None and federation.is_up(event.where):
        site = federation.site(event.where)
        said = federation.lives[event.where].machine.start(site.withdraw(event.patient, EVERYTHING, by="patient"))
        await asyncio.wait({said})
        if not said.cancelled() and said.exception() is None:
            course.acknowledged[event.where, event.patient] = said.result().entry


async def _ask_all(scientist: Caller, founded: Founded, plot: Plot, course: _Course) -> None:
    for query in plot.queries:
        body = json.dumps({"permit": founded.permit, "query": msgspec.to_builtins(query)}).encode()
        run = (await _until(scientist, "POST", "/api/runs", body))["run"]
        while True:
            report = await _until(scientist, "GET", f"/api/runs/{run}", b"")
            course.runs[run] = report["status"]
            if report["ended"] is not None:
                break
            await asyncio.sleep(LOOK)


async def _until(scientist: Caller, method: str, path: str, body: bytes) -> Any:
    """The answer, however often it has to be asked for. A run that is opened twice because a reply was lost is two runs."""
    while True:
        try:
            reply = await scientist.call(method, path, body, kind=JSON, wait=5.0)
        except (Unavailable, Refused, BadInput):
            await asyncio.sleep(LOOK)
            continue
        if reply.status < 300:  # HTTP
            return json.loads(reply.body)
        await asyncio.sleep(LOOK)
