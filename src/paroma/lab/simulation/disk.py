"""A disk that fails as a plan says: before the write, after it, for want of space, or by a kill at that very point.

*Failed and left nothing* and *failed but left it* are two different worlds, and whoever writes must be right in both.
"""

import errno
import os
import random
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from paroma.kernel.disk import Disk
from paroma.lab.simulation.loop import SimulatedKill


class Fault(Enum):
    """What happens to one durable write."""

    FAILS_BEFORE = "fails and leaves nothing"
    FAILS_AFTER = "fails but leaves what it wrote"
    FULL = "no space"
    KILL_BEFORE = "the process is killed before it"
    KILL_AFTER = "the process is killed after it"


Plan = Callable[[int], Fault | None]
SOUND: Final[Plan] = lambda _write: None  # noqa: E731  # a plan, like those that the functions below make


def at(write: int, fault: Fault) -> Plan:
    """`fault` at durable write number `write` (the first is 1), and never else."""
    return lambda number: fault if number == write else None


def from_then_on(write: int, fault: Fault) -> Plan:
    """`fault` at durable write number `write` and at every later one: a disk that is full, or gone."""
    return lambda number: fault if number >= write else None


def by_chance(source: random.Random, chances: dict[Fault, float]) -> Plan:
    """Each fault with its chance (0 to 1) at every durable write, drawn from `source`."""

    def plan(_write: int) -> Fault | None:
        drawn = source.random()
        for fault, chance in chances.items():
            if drawn < chance:
                return fault
            drawn -= chance
        return None

    return plan


class FaultyDisk:
    """A `kernel.disk.Disk` over another one. After a kill it does nothing any more: its process is dead."""

    def __init__(self, inner: Disk, plan: Plan = SOUND, *, on_kill: Callable[[], None] = lambda: None) -> None:
        """on_kill: called once, at the point of a planned kill, before SimulatedKill is raised."""
        self.writes = 0
        self.plan = plan
        self.dead = False
        self._inner = inner
        self._on_kill = on_kill

    def kill(self) -> None:
        """From now on every use raises SimulatedKill."""
        self.dead = True

    def commit(self, commit: Callable[[], None]) -> None:
        """Call `commit`, unless the plan says otherwise."""
        self._write(lambda: self._inner.commit(commit))

    def replace(self, path: Path, content: bytes, *, mode: int = 0o600) -> None:
        """Replace the file, unless the plan says otherwise."""
        self._write(lambda: self._inner.replace(path, content, mode=mode))

    def remove(self, path: Path) -> None:
        """Remove the file, unless the plan says otherwise."""
        self._write(lambda: self._inner.remove(path))

    def write_at(self, path: Path, offset: int, content: bytes) -> None:
        """Write into the file, unless the plan says otherwise."""
        self._write(lambda: self._inner.write_at(path, offset, content))

    def settle(self, part: Path, whole: Path) -> None:
        """Settle the file, unless the plan says otherwise."""
        self._write(lambda: self._inner.settle(part, whole))

    def _write(self, write: Callable[[], None]) -> None:
        if self.dead:
            raise SimulatedKill
        self.writes += 1
        fault = self.plan(self.writes)
        if fault is Fault.FAILS_BEFORE:
            raise _error(errno.EIO)
        if fault is Fault.FULL:
            raise _error(errno.ENOSPC)
        if fault is Fault.KILL_BEFORE:
            self._die()
        write()
        if fault is Fault.FAILS_AFTER:
            raise _error(errno.EIO)
        if fault is Fault.KILL_AFTER:
            self._die()

    def _die(self) -> None:
        self.dead = True
        self._on_kill()
        raise SimulatedKill


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
