"""Time as a parameter, so that a whole federation can run on virtual time."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Says what time it is, and waits."""

    def now(self) -> float:
        """Seconds since 1970 (UTC); may jump when somebody sets the clock."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Seconds since 1970 (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)


def iso(at: float) -> str:
    """`at` (seconds since 1970) as RFC 3339 text in UTC, to the millisecond: `2026-11-24T14:02:11.204Z`."""
    return datetime.fromtimestamp(round(at, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
