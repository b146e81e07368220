"""The one way for blocking work to leave the loop; the simulation replaces it by a direct call."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Blocking(Protocol):
    """Runs work that waits for a disk or for much computing."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` without holding up the loop, and return what it returns."""


class Threads:
    """A few threads of our own."""

    def __init__(self, most: int, name: str = "paroma") -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown()


class Inline:
    """No thread at all: for the simulation and for short commands."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` here and now."""
        return work()
