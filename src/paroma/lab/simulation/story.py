"""What happens to a founded federation under one seed, and what was seen of it.

A scientist asks questions; meanwhile links lose, delay, double and reorder, disks fail, machines lose power, lines are cut, patients
withdraw, a site is brought back from an older copy, or the hub lies. From `Plot.calm` on nothing goes wrong any more, and every run
has to come to its result, unless a rule of the platform says why not.
"""

import asyncio
import gc
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from paroma.data.consent.statement import EVERYTHING
from paroma.hub.tables import RUNS
from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.randomness import SeededRandomness
from paroma.lab.simulation import checks
from paroma.lab.simulation.checks import Seen
from paroma.lab.simulation.clock import VirtualClock
from paroma.lab.simulation.disk import SOUND, by_chance
from paroma.lab.simulation.federation import HOSPITALS, HUB, HUB_URL, Defect, Federation, no_defect
from paroma.lab.simulation.founding import JSON, Founded, caller
from paroma.lab.simulation.history import Course, length_at_rest
from paroma.lab.simulation.liar import Liar
from paroma.lab.simulation.loop import Loop, run
from paroma.lab.simulation.network import QUIET, Internet
from paroma.lab.simulation.plot import Asked, Event, Part, Plot, plot_of
from paroma.trust.channel.caller import Caller

LONGEST: Final = 900.0  # virtual s within which every run has to end after the last trouble
LONGEST_LIE: Final = 60.0  # virtual s for which a lying hub is watched
LOOK, MOST_LOOK = 1.0, 5.0  # s between two looks of the scientist, who looks less and less often


def play(seed: int, founded: Founded, *, defect: Defect = no_defect, plot: Plot | None = None) -> Seen:
    """The whole course under `seed`, and what is left of it. plot: in place of the one that the seed decides."""
    where = Path("/dev/shm")  # memory: what must survive survives a simulated kill, no disk is waited for
    with tempfile.TemporaryDirectory(dir=where if where.is_dir() else None, prefix="paroma-seed-") as made:
        founded.copy_to(Path(made))
        with _few_collections():
            return run(seed, lambda loop: _play(loop, Path(made), founded, defect, plot or plot_of(seed, founded)))


@contextmanager
def _few_collections() -> Iterator[None]:
    """A course makes many short-lived objects and few circles: looking for these a tenth as often saves a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _play(loop: Loop, folder: Path, founded: Founded, defect: Defect, plot: Plot) -> Seen:
    course = Course(plot=plot)
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
        compiled=founded.compiled,
    )
    if plot.lies:
        federation.disguise = lambda _hub, app: Liar(app, plot.lies, plot.lied_to, loop.source("lies"), course.told)
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
    course.calm = clock.now() + plot.calm
    happening = [loop.create_task(_happen(federation, event, course)) for event in plot.events]
    calm = loop.create_task(_calm(federation, began + plot.calm))
    asking = loop.create_task(_ask_all(federation, scientist, founded, plot, course))
    try:
        async with asyncio.timeout(plot.calm + (LONGEST_LIE if plot.lies else LONGEST)):
            await asyncio.gather(asking, *happening)
            if not all(federation.is_up(name) for name in federation.starts):
                await calm  # a machine that is down comes back: what its newest life holds is looked at
                await federation.all_up()
    except TimeoutError:
        course.late = not course.told  # a hub that lies may keep a run waiting for ever: it alone is hurt by that
    calm.cancel()
    await federation.end()
    try:
        return checks.check(federation, founded, course)
    finally:
        federation.close()


async def _calm(federation: Federation, at: float) -> None:
    await asyncio.sleep(at - federation.loop.time())
    federation.internet.faults = QUIET
    federation.plans.clear()
    for name in (HUB, *HOSPITALS):
        federation.internet.heal(HUB, name)
        federation.lives[name].machine.disk.plan = SOUND


async def _happen(federation: Federation, event: Event, course: Course) -> None:
    await asyncio.sleep(event.at)
    federation.loop.note(f"{event.what} {event.where}")
    if event.what == "kill":
        federation.kill(event.where)
    elif event.what == "cut":
        federation.internet.cut(HUB, event.where)
        await asyncio.sleep(event.lasting)
        federation.internet.heal(HUB, event.where)
    elif event.part is not None:
        await _restore(federation, event, event.part, course)
    elif event.patient is not None and federation.is_up(event.where):
        site = federation.site(event.where)
        said = federation.lives[event.where].machine.start(site.withdraw(event.patient, EVERYTHING, by="patient"))
        await asyncio.wait({said})
        if not said.cancelled() and said.exception() is None:
            course.acknowledged[event.where, event.patient] = said.result().entry + course.shift.get(event.where, 0)


async def _restore(federation: Federation, event: Event, part: Part, course: Course) -> None:
    """Make a copy, let things go on, cut the power, and put the copy in the place of what was written since.

    Between two steps of the loop nobody is in the middle of a write, so that the copy is one of a machine without power.
    """
    name, folder, copy = event.where, federation.folder / event.where, federation.folder / f"copy of {event.where}"
    await _up(federation, name)
    shutil.copytree(folder, copy)
    await asyncio.sleep(event.lasting)
    await _up(federation, name)
    federation.lost.add(name)

    def put_back() -> None:
        forgotten = federation.folder / f"forgotten by {name}"
        shutil.copytree(folder, forgotten)
        course.forgotten[name] = forgotten
        course.shift[name] = length_at_rest(forgotten) - length_at_rest(copy) if database else 0
        if part is Part.BOTH:
            course.shown[name] = checks.shown(federation, name)
        for old in folder.iterdir():  # keys, roots and membership stay: they never change
            if old.name == "vault" and part is not Part.DATABASE:
                shutil.rmtree(old)
                shutil.copytree(copy / old.name, old)
            elif old.name.startswith("site.db") and database:
                old.unlink()
        for kept in copy.glob("site.db*"):
            if database and not kept.name.endswith("-shm"):
                shutil.copy2(kept, folder / kept.name)

    database = part is not Part.VAULT
    federation.between[name] = put_back
    federation.kill(name)


async def _up(federation: Federation, name: str) -> None:
    while not federation.is_up(name):  # noqa: ASYNC110  # the looks are virtual, and cost nothing
        await asyncio.sleep(0.1)


async def _ask_all(federation: Federation, scientist: Caller, founded: Founded, plot: Plot, course: Course) -> None:
    for asked in plot.asked:
        run = await _open(scientist, founded, asked, course)
        if run is None:
            return
        look = LOOK / 2
        while True:
            report = await _until(scientist, "GET", f"/api/runs/{run}")
            course.runs[run] = report["status"]
            if report["ended"] is not None:
                break
            look = min(look * 1.5, MOST_LOOK)
            await asyncio.sleep(look)
    while any(ended is None for ended in _ends(federation)):  # noqa: ASYNC110  # a run that nobody waits for has to end all the same
        await asyncio.sleep(LOOK)


def _ends(federation: Federation) -> list[float | None]:
    def read(tx: Connection) -> list[float | None]:
        return list(tx.execute(select(RUNS.c.ended)).scalars())

    return federation.hub().store.read_now(read)


async def _open(scientist: Caller, founded: Founded, asked: Asked, course: Course) -> str | None:
    """The run that was opened; None where the hub said that the permit allows no more.

    A reply that was lost may mean that there is a run: whoever gets none looks, before asking again.
    """
    permit = founded.private if asked.private else founded.permit
    body = json.dumps({"permit": permit, "query": msgspec.to_builtins(asked.query)}).encode()
    while True:
        try:
            reply = await scientist.call("POST", "/api/runs", body, kind=JSON, wait=5.0)
        except (Unavailable, Refused, BadInput):
            await asyncio.sleep(LOOK)
        else:
            if reply.status < 300:  # HTTP
                return str(json.loads(reply.body)["run"])
            course.refusals.append(json.loads(reply.body).get("detail", ""))
            if "more questions" in course.refusals[-1]:
                return None
            await asyncio.sleep(LOOK)
        new = [one["run"] for one in await _until(scientist, "GET", "/api/runs") if one["run"] not in course.runs]
        if new:
            return str(new[0])


async def _until(scientist: Caller, method: str, path: str) -> Any:
    """The answer, however often it has to be asked for."""
    while True:
        try:
            reply = await scientist.call(method, path, b"", kind=JSON, wait=5.0)
        except (Unavailable, Refused, BadInput):
            await asyncio.sleep(LOOK)
            continue
        if reply.status < 300:  # HTTP
            return json.loads(reply.body)
        await asyncio.sleep(LOOK)
