"""Workers without walls, for the simulation: the same entries, called in this very process.

Behind the same port as the sandbox, but it protects from nothing: no program imports it (a test looks). A conversation
runs in a thread that is waited for, one step at a time, so that the same seed gives the same trace.
"""

import mmap
import os
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from paroma.learn.sandbox.entries import Entry, load
from paroma.learn.sandbox.task import (
    ContractBroken,
    Conversation,
    Ending,
    EntryUnknown,
    Finished,
    Said,
    Task,
    WorkerFailed,
)


class InProcess:
    """Calls entries directly. Knows no limits: a task that does not return is not ended."""

    def __init__(self, preload: Iterable[str]) -> None:
        self._entries = load(preload)

    async def run(self, task: Task) -> bytes:
        """Call `entry(payload, tables)`. Raises WorkerFailed, EntryUnknown."""
        entry = self._entry(task)
        views = [_view(t) for t in task.tables]
        try:
            return entry(task.payload, views)
        except ContractBroken as broken:
            raise WorkerFailed(task.entry, Ending.CONTRACT) from broken
        except MemoryError as full:
            raise WorkerFailed(task.entry, Ending.MEMORY) from full
        except (Exception, SystemExit) as error:
            raise WorkerFailed(task.entry, Ending.RAISED) from error

    async def converse(self, task: Task) -> Conversation:
        """Start `entry(payload, tables, channel)` in a thread. Raises EntryUnknown."""
        talk = _Talk(task)
        talk.start(self._entry(task), [_view(t) for t in task.tables])
        return talk

    def _entry(self, task: Task) -> Entry:
        try:
            return self._entries[task.entry]
        except KeyError:
            raise EntryUnknown(task.entry) from None


@dataclass(slots=True)
class _Talk:
    """Both ends of a conversation: the host's methods are async, the worker's (in `_Channel`) block."""

    task: Task
    out: "queue.SimpleQueue[Said | Finished | Ending]" = field(default_factory=queue.SimpleQueue)
    back: "queue.SimpleQueue[bytes | None]" = field(default_factory=queue.SimpleQueue)

    def start(self, entry: Entry, views: list[memoryview]) -> None:
        def work() -> None:
            try:
                self.out.put(Finished(entry(self.task.payload, views, _Channel(self))))
            except ContractBroken:
                self.out.put(Ending.CONTRACT)
            except (Exception, SystemExit):  # noqa: BLE001 - this is where a task ends
                self.out.put(Ending.RAISED)

        threading.Thread(target=work, name="worker", daemon=True).start()

    async def listen(self) -> Said | Finished:
        said = self.out.get()  # blocks the loop on purpose: virtual time stands still while a worker computes
        if isinstance(said, Ending):
            raise WorkerFailed(self.task.entry, said)
        return said

    async def say(self, data: bytes) -> None:
        self.back.put(data)

    async def close(self) -> None:
        self.back.put(None)


@dataclass(frozen=True, slots=True)
class _Channel:
    talk: _Talk

    def say(self, data: bytes) -> None:
        self.talk.out.put(Said(data))

    def listen(self) -> bytes:
        data = self.talk.back.get()
        if data is None:
            raise EOFError
        return data


def _view(table: bytes | int) -> memoryview:
    if isinstance(table, bytes):
        return memoryview(table)
    size = os.fstat(table).st_size
    return memoryview(mmap.mmap(table, size, mmap.MAP_SHARED, mmap.PROT_READ)) if size else memoryview(b"")
