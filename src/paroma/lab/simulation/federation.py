"""A hub, four hospitals and their people in one process: the code of `hub` and `site`, on virtual time, from a seed.

`Federation` holds the machines. Each has one keeper, which starts its program, and starts it again some time after a kill,
over the files that the last life left. What is simulated is the world alone: clock, network, disk, randomness, threads,
and the walls around workers.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import select

from paroma.hub.app import make_app as make_hub_app
from paroma.hub.parts import Hub, Ports as HubPorts, open_hub
from paroma.hub.settings import HubSettings
from paroma.hub.tables import RUNS
from paroma.kernel.errors import ParomaError
from paroma.kernel.ids import PermitId
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.store.database import Store
from paroma.lab.simulation import app as stand_in
from paroma.lab.simulation.compiled import Compiled
from paroma.lab.simulation.disk import SOUND, Plan
from paroma.lab.simulation.kem import SeededKem
from paroma.lab.simulation.loop import Loop, SimulatedKill
from paroma.lab.simulation.machine import Machine
from paroma.lab.simulation.network import App, Internet
from paroma.lab.workers import InProcess
from paroma.learn.algorithms.names import COMPUTE
from paroma.learn.flower.names import SERVE, TRAIN
from paroma.learn.sandbox.task import Conversation, EntryUnknown, Task
from paroma.site.app import make_app as make_site_app
from paroma.site.parts import Ports as SitePorts, Site, open_site
from paroma.site.settings import SiteSettings

T = TypeVar("T")
HUB: Final = "hub"
HUB_URL: Final = "https://hub.example:8443"
HOSPITALS: Final = ("cleveland", "hungarian", "switzerland", "va")
STAND_IN: Final = "paroma.lab.simulation.app:train"

Program = Hub | Site
Defect = Callable[[Site], None]
"""A defect that a test plants into a site, to see that some seed finds it."""


Disguise = Callable[[Hub, App], App]
"""What stands between the hub's program and its sites: nothing, or a liar."""


def no_defect(_site: Site) -> None:
    """The code as it is."""


def honest(_hub: Hub, app: App) -> App:
    """The hub as it is."""
    return app


class Interleaved:
    """A `kernel.blocking.Blocking` without threads; the others may go on before and after the work, as with threads."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` at a moment that the loop's seed decides."""
        await asyncio.sleep(0)
        done = work()
        await asyncio.sleep(0)
        return done


class SlowWorkers:
    """Workers in this process that take virtual time, so that something can happen before, and after, rows are read.

    The platform's own algorithms are computed by their real entry. In place of a Flower app stands `app`.
    """

    def __init__(self, source: random.Random, *, longest: float) -> None:
        """longest: seconds that one task may take."""
        self._inner = InProcess((COMPUTE, STAND_IN))
        self._source = source
        self._longest = longest

    async def run(self, task: Task) -> bytes:
        """The entry's reply. Raises WorkerFailed, EntryUnknown."""
        await asyncio.sleep(self._source.uniform(0, self._longest))
        reply = await self._inner.run(replace(task, entry=STAND_IN) if task.entry == TRAIN else task)
        await asyncio.sleep(self._source.uniform(0, self._longest))
        return reply

    async def converse(self, task: Task) -> Conversation:
        """The server part of the app. Raises EntryUnknown."""
        if task.entry != SERVE:
            raise EntryUnknown(task.entry)
        return stand_in.Talk(stand_in.serve())


@dataclass(slots=True)
class Life:
    """One life of a program, from its start to its end."""

    machine: Machine
    killed: asyncio.Event
    program: Program | None = None
    up: bool = False

    @property
    def store(self) -> Store:
        """The program's database."""
        if self.program is None:
            raise RuntimeError("this life never began")
        return self.program.store


@dataclass(slots=True, kw_only=True)
class Federation:
    """All machines over one folder. elapsed: virtual seconds that had passed before this simulation began."""

    loop: Loop
    folder: Path
    elapsed: float = 0.0
    authority: bytes
    internet: Internet
    plans: dict[str, Plan] = field(default_factory=dict)
    downtime: float = 5.0  # s, the longest time between a kill and the next start
    slowest_worker: float = 0.3  # s
    defect: Defect = no_defect
    compiled: Compiled = field(default_factory=Compiled)
    disguise: Disguise = honest
    between: dict[str, Callable[[], None]] = field(default_factory=dict)  # done to a machine's files at its next start
    lost: set[str] = field(default_factory=set)  # machines that need not come up again
    lives: dict[str, Life] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    refused_starts: list[str] = field(default_factory=list)
    defects: list[Exception] = field(default_factory=list)  # what no start may raise
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, *names: str) -> None:
        """Start these machines, and keep them up."""
        self._keepers += [self.loop.create_task(self._keep(name)) for name in names]

    async def all_up(self) -> None:
        """Wait until every machine that was begun is up, but for those that are lost."""
        while not all(self.is_up(name) for name in self.starts if name not in self.lost) or len(self.starts) < len(
            self._keepers
        ):
            if self.defects:
                raise self.defects[0]
            await asyncio.sleep(0.01)

    def is_up(self, name: str) -> bool:
        """Whether this machine serves now."""
        life = self.lives.get(name)
        return life is not None and life.up and not life.machine.killed

    def kill(self, name: str) -> None:
        """Cut this machine's power."""
        self.lives[name].machine.kill()

    def hub(self) -> Hub:
        """The newest life of the hub."""
        program = self.lives[HUB].program
        if not isinstance(program, Hub):
            raise TypeError("the hub never began")
        return program

    def site(self, name: str) -> Site:
        """The newest life of a hospital's site."""
        program = self.lives[name].program
        if not isinstance(program, Site):
            raise TypeError(f"`{name}` never began")
        return program

    def store_of(self, name: str) -> Store | None:
        """The database of the newest life, where it is open."""
        program = self.lives[name].program
        return None if program is None else program.store

    def runs_under(self, permit: PermitId) -> frozenset[str]:
        """The runs that the hub opened under a permit."""
        runs = select(RUNS.c.run).where(RUNS.c.permit == permit)
        return frozenset(self.hub().store.read_now(lambda tx: tx.execute(runs).scalars().all()))

    async def end(self) -> None:
        """Cut everybody's power and start nothing any more. The newest lives' databases can still be read."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for life in self.lives.values():
            life.machine.kill()
        await asyncio.sleep(1.0)

    async def finish(self) -> None:
        """Stop every program as an operator would, in an orderly way."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self.close()

    def close(self) -> None:
        """Let go of databases and vaults."""
        for life in self.lives.values():
            _let_go(life)

    async def _keep(self, name: str) -> None:
        wait = self.loop.source(f"downtime/{name}")
        while True:
            life = self._new_life(name)
            self.lives[name] = life
            serving = self.loop.create_task(self._serve(name, life))
            killed = self.loop.create_task(life.killed.wait())
            try:
                await asyncio.wait({serving, killed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                killed.cancel()
                serving.cancel()
                if not life.killed.is_set():
                    await asyncio.gather(serving, return_exceptions=True)
            life.machine.kill()  # where it did not start, or stopped by itself
            (outcome,) = await asyncio.gather(serving, return_exceptions=True)
            if isinstance(outcome, Exception):  # no fault of the world: a defect, which ends the simulation
                self.defects.append(outcome)
                return
            await asyncio.sleep(wait.uniform(0.05, self.downtime))
            _let_go(life)
            if name in self.lost and life.program is None and name not in self.between:
                return  # it does not open over the copy that came back, and would not the next time
            if (act := self.between.pop(name, None)) is not None:
                act()

    def _new_life(self, name: str) -> Life:
        number = self.starts[name] = self.starts.get(name, 0) + 1
        killed = asyncio.Event()
        plan = self.plans.get(name, SOUND)
        machine = Machine(
            self.loop, self.internet, name, plan=plan, wrong_by=self.elapsed, on_kill=lambda: self._dead(life)
        )
        life = Life(machine, killed)
        self.loop.note(f"start {name} {number}")
        return life

    def _dead(self, life: Life) -> None:
        life.up = False
        life.killed.set()
        if isinstance(life.program, Site):
            life.program.vault.close()  # the kernel lets go of a dead process's locks

    async def _serve(self, name: str, life: Life) -> None:
        """Open the program and serve it until cancelled. A start that fails is a life that ends at once."""
        try:
            url, app = self._open(name, life)
        except (ParomaError, OSError, SimulatedKill) as problem:
            self.refused_starts.append(f"{name}: {type(problem).__name__}: {problem}")
            return
        try:
            async with self.internet.serving(name, url, app):
                life.up = True
                await asyncio.get_running_loop().create_future()
        except RuntimeError as problem:  # the program's own start failed
            self.refused_starts.append(f"{name}: {problem}")

    def _open(self, name: str, life: Life) -> tuple[str, App]:
        machine, number = life.machine, self.starts[name]
        randomness = SeededRandomness(self.loop.seed, f"{name}/{number}")
        folder = self.folder / name
        if name == HUB:
            settings = HubSettings(folder=folder, name="Simulated hearts", url=HUB_URL)
            ports = HubPorts(
                clock=machine.clock,
                randomness=randomness,
                disk=machine.disk,
                blocking=Interleaved(),
                workers=SlowWorkers(self.loop.source(f"workers/{name}/{number}"), longest=self.slowest_worker),
            )
            hub = open_hub(settings, ports, authority=self.authority)
            life.program = hub
            self.compiled.share(hub.store)
            return HUB_URL, self.disguise(hub, make_hub_app(hub))
        site = open_site(
            site_settings(self.folder, name),
            SitePorts(
                clock=machine.clock,
                randomness=randomness,
                disk=machine.disk,
                blocking=Interleaved(),
                network=machine.network,
                workers=SlowWorkers(self.loop.source(f"workers/{name}/{number}"), longest=self.slowest_worker),
                kem=SeededKem(),
                walls=tuple,
            ),
        )
        self.compiled.share(site.store)
        self.defect(site)
        life.program = site
        return site.settings.origin, make_site_app(site)


def site_settings(folder: Path, name: str) -> SiteSettings:
    """How the site of a hospital is set up under the federation's `folder`."""
    return SiteSettings(folder=folder / name, title=name, url=f"https://{name}.example:8480")


def _let_go(life: Life) -> None:
    program = life.program
    if program is None:
        return
    if isinstance(program, Site):
        with contextlib.suppress(OSError):
            program.vault.close()
    program.store.close()
