"""The clock of a simulated machine: virtual time, wrong by as much as the test wants."""

import asyncio
from typing import Final

from paroma.lab.simulation.loop import Loop

START: Final = 1_795_500_000.0  # 2026-11-24T06:00:00Z, in seconds since 1970


class VirtualClock:
    """A `kernel.clock.Clock` on a loop's virtual time."""

    def __init__(self, loop: Loop, *, start: float = START, wrong_by: float = 0.0) -> None:
        """start: what the time is when the loop begins. wrong_by: seconds by which this machine is ahead."""
        self._loop = loop
        self._start = start
        self._wrong_by = wrong_by

    def now(self) -> float:
        """Seconds since 1970, as this machine believes."""
        return self._start + self._loop.time() + self._wrong_by

    def monotonic(self) -> float:
        """Virtual seconds since the loop began."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual `seconds`."""
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Somebody sets this machine's clock: `seconds` forward, or back."""
        self._wrong_by += seconds
