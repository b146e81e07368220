"""A machine of the simulation: its tasks, its disk and its lines end together when it is killed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from paroma.kernel.disk import Disk, SystemDisk
from paroma.lab.simulation.clock import VirtualClock
from paroma.lab.simulation.disk import SOUND, FaultyDisk, Plan
from paroma.lab.simulation.loop import Loop
from paroma.lab.simulation.network import Internet, MachineNetwork

T = TypeVar("T")


class Machine:
    """One life of a machine, from its start to its end; after a kill, make another over the same folder.

    What it durably wrote is all that the next life finds.
    """

    def __init__(
        self,
        loop: Loop,
        internet: Internet,
        name: str,
        *,
        plan: Plan = SOUND,
        inner: Disk | None = None,
        wrong_by: float = 0.0,
        on_kill: Callable[[], None] = lambda: None,
    ) -> None:
        """plan: what its disk does. wrong_by: seconds by which its clock is ahead. on_kill: called at its kill."""
        self.name = name
        self.clock = VirtualClock(loop, wrong_by=wrong_by)
        self.disk = FaultyDisk(inner or SystemDisk(), plan, on_kill=self.kill)
        self.network: MachineNetwork = internet.network(name)
        self.killed = False
        self._loop = loop
        self._internet = internet
        self._on_kill = on_kill

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run `work`, and whatever it starts, on this machine."""
        return self._loop.on_machine(self.name, work)

    def kill(self) -> None:
        """End everything here at once: no write and no message of this life has any effect from now on."""
        if self.killed:
            return
        self.killed = True
        self.disk.kill()
        self._internet.kill(self.name)
        for task in self._loop.tasks_of(self.name):
            task.cancel()
        self._on_kill()
