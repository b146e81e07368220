"""A loop of its own in a thread of its own: plain calls work in a script, and in a notebook whose loop is busy."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

from paroma.kernel.errors import Refused

T = TypeVar("T")
CLOSING_SECONDS: Final = 5.0


class ConnectionClosed(Refused):
    """The connection was closed."""

    def __init__(self) -> None:
        super().__init__("this connection is closed", do="make another with `paroma.connect()`")


class Background:
    """Runs coroutines for callers that wait. The thread ends with `close`, or with the program."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="paroma", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether `close` is still to come."""
        return not self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns. Ctrl-C ends the work, too. Raises ConnectionClosed, and what `work` raises."""
        if self._loop.is_closed():
            work.close()
            raise ConnectionClosed
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as problem:
            raise ConnectionClosed from problem
        finally:
            future.cancel()  # only a caller that was interrupted leaves something to cancel

    def close(self) -> None:
        """End the thread; work that still runs is cancelled."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(CLOSING_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSING_SECONDS)
        self._loop.close()


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
