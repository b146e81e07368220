"""What is asked of a worker, and the few ways in which it can end.

Imports nothing of the platform but its errors, so that the zygote and the simulation can share it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from paroma.kernel.errors import BadInput, ParomaError, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one task may use. All are enforced from outside the code that runs."""

    seconds: float = 60.0  # wall clock that the worker may keep us waiting, in all
    cpu_seconds: int = 60  # of all its threads together; then the kernel kills it
    memory: int = 1 << 30  # bytes of address space beyond what the zygote has and the tables need
    reply: int = 64 << 20  # bytes of one message from the worker
    file: int = 64 << 20  # bytes of one file in its private folder
    files: int = 128  # open file descriptors


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work: an entry from the preload list, called with the payload and the tables."""

    entry: str  # "package.module:function"
    payload: bytes
    tables: tuple[bytes | int, ...] = ()  # bytes are handed over as a sealed memfd; an int is a memfd of yours, sealed
    #                                       against writing (F_SEAL_WRITE or F_SEAL_FUTURE_WRITE): live consent bits
    limits: Limits | None = None  # the sandbox's own where nothing is said


class Ending(Enum):
    """Why a task gave no reply. The list is fixed: a text written by the code inside would be a way out for records.

    Even which of these it was stays at the site: a crash "if the patient has the disease" is a channel of its own.
    """

    RAISED = "raised"  # the code inside raised an error
    CONTRACT = "contract"  # the code inside gave back something that the contract does not allow
    LATE = "late"  # over its wall clock
    CPU = "cpu"  # over its processor time
    MEMORY = "memory"  # over its memory
    REPLY = "reply"  # the reply was too large or not a frame
    DIED = "died"  # a signal, an exit, a vanished zygote


class WorkerFailed(ParomaError):
    """A task ended without a reply. What it printed lies in a local file, for whoever develops at the site."""

    def __init__(self, entry: str, ending: Ending) -> None:
        super().__init__(
            f"the worker `{entry}` gave no reply ({ending.value})",
            do="look into the site's worker notes; the run goes on without this contribution",
        )
        self.entry = entry
        self.ending = ending


class EntryUnknown(BadInput):
    """A task named something that the zygote did not preload."""

    def __init__(self, entry: str) -> None:
        super().__init__(
            f"`{entry}` is not an entry of this sandbox",
            do="name it as `module:function` in the preload list when the sandbox starts",
        )


class LimitTooHigh(BadInput):
    """A task asked for more memory than the sandbox was started with."""

    def __init__(self, asked: int, most: int) -> None:
        super().__init__(
            f"the task asks for {asked} bytes, the sandbox gives at most {most}",
            do="start the sandbox with a higher `limits.memory`",
        )


class TableUnsealed(BadInput):
    """A memfd was given that the worker could write to."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"table {position} can still be written or shrunk by the worker",
            do="seal it with F_SEAL_SHRINK and F_SEAL_FUTURE_WRITE after mapping it",
        )


class SandboxIncomplete(Unavailable):
    """A wall cannot be built on this machine, so nothing runs."""

    def __init__(self, wall: str, why: str) -> None:
        super().__init__(
            f"the wall `{wall}` cannot be built here: {why}",
            do="run `paroma site doctor`, which lists every wall and what it needs",
        )
        self.wall = wall
        self.why = why


class PreloadFailed(Unavailable):
    """The walls stand, but what the workers need cannot be imported behind them."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the worker cannot import what it needs: {why}",
            do="install the extra that brings it, and let everybody read the installed packages",
        )


@dataclass(frozen=True, slots=True)
class Said:
    """A message from a worker that goes on: it waits for an answer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message of a worker: what its entry returned."""

    data: bytes


class Conversation(Protocol):
    """A task that talks while it runs: its entry takes a third argument, a `Channel`."""

    async def listen(self) -> Said | Finished:
        """The next message from the worker. Raises WorkerFailed."""

    async def say(self, data: bytes) -> None:
        """Answer the worker. Raises WorkerFailed."""

    async def close(self) -> None:
        """End the worker if it still runs."""


class Channel(Protocol):
    """The worker's end of a conversation."""

    def say(self, data: bytes) -> None:
        """Send one message out. Waits while the other side does not read."""

    def listen(self) -> bytes:
        """Wait for the answer. Raises EOFError when the other side has gone."""


class Workers(Protocol):
    """Where work is done: a `Sandbox` in the programs, `lab.workers.InProcess` in the simulation."""

    async def run(self, task: Task) -> bytes:
        """Call `entry(payload, tables)` in a worker and return its reply. Raises WorkerFailed, EntryUnknown,
        SandboxIncomplete.
        """

    async def converse(self, task: Task) -> Conversation:
        """Start `entry(payload, tables, channel)` in a worker. Raises EntryUnknown, SandboxIncomplete."""


class ContractBroken(Exception):
    """Raised by an entry when the code that it runs gave back something not allowed. Ends the task with
    `Ending.CONTRACT`.
    """
