"""An asyncio loop on virtual time, whose every choice comes from a seed.

Nothing waits: when no task can go on, the time jumps to the next timer. What is ready at the same moment runs in an
order that the seed decides, so that a thousand seeds try a thousand interleavings, and a failing one can be run
again. Tasks and futures are hashed by their number, because sets of them would otherwise be walked in the order of
addresses.
"""

import asyncio
import contextvars
import hashlib
import itertools
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Never, TypeVar

import anyio.to_thread

T = TypeVar("T")

TICK: Final = 1e-6  # s
MACHINE: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("machine", default="")


class Deadlock(RuntimeError):
    """Nothing can go on and no timer is set: somebody waits for what will never happen."""


class LeavesSimulation(RuntimeError):
    """Code asked for a thread. Blocking work goes through `kernel.blocking`, which the simulation replaces."""


class SimulatedKill(BaseException):
    """The process was killed at this very point. Nothing may catch it: a killed process catches nothing."""


class _Task(asyncio.Task[Any]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.BaseEventLoop):
    """The loop. `trace` is a hash of everything noted so far: two runs are the same when their traces are."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.steps = 0
        self.complaints: list[dict[str, Any]] = []  # what asyncio would have logged
        self._now = 0.0
        self._random = random.Random(f"{seed}/order")
        self._numbers = itertools.count(1)
        self._trace = hashlib.blake2b(digest_size=16)
        self._tasks: dict[str, list[_Task]] = {}
        self._selector = self  # BaseEventLoop asks it for events; there are none but timers
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # its context is a keyword, as asyncio calls it

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    @property
    def trace(self) -> str:
        """A hash of all notes and of the number of steps."""
        whole = self._trace.copy()
        whole.update(f"{self.steps}/{self._now!r}".encode())
        return whole.hexdigest()

    def note(self, event: str) -> None:
        """Add `event` to the trace."""
        self._trace.update(f"{self._now!r} {event}\n".encode())

    def source(self, name: str) -> random.Random:
        """A stream of random numbers of its own for `name`: what one part draws does not move another's."""
        return random.Random(f"{self.seed}/{name}")

    def tasks_of(self, machine: str) -> list[asyncio.Task[Any]]:
        """The unfinished tasks that were started on `machine`, oldest first."""
        alive = [task for task in self._tasks.get(machine, ()) if not task.done()]
        self._tasks[machine] = alive
        return list(alive)

    def on_machine(self, machine: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `work`, and whatever it starts in turn, as tasks of `machine`."""
        context = contextvars.copy_context()
        context.run(MACHINE.set, machine)
        return self.create_task(work, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """A future with a number."""
        future = _Future(loop=self)
        future.number = next(self._numbers)
        return future

    def select(self, timeout: float | None) -> tuple[()]:
        """Let the time pass. Raises Deadlock."""
        if timeout is None:
            raise Deadlock(f"at {self._now:.3f} s every task waits and no timer is set (seed {self.seed})")
        if not self._ready:  # type: ignore[attr-defined]  # as in `_run_once`
            # never by less than a tick: asyncio calls a timer that is due within a nanosecond, and who then sees that no
            # time has passed waits again, for ever
            self._now += max(timeout, TICK)
        return ()

    def run_in_executor(self, _executor: object, func: Callable[..., Any], *_args: object) -> Never:
        """Refused. Raises LeavesSimulation."""
        raise LeavesSimulation(f"`{getattr(func, '__qualname__', func)}` asked for a thread")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio complains about, but for the traces of simulated kills."""
        if not isinstance(context.get("exception"), SimulatedKill):
            self.complaints.append(context)

    def _make_task(self, _loop: object, work: Generator[Any, None, Any], **options: Any) -> _Task:
        task = _Task(work, loop=self, **options)
        task.number = next(self._numbers)
        context: contextvars.Context | None = options.get("context")
        machine = context.get(MACHINE, "") if context is not None else MACHINE.get()
        started = self._tasks.setdefault(machine or "", [])
        started.append(task)
        if len(started) > 256 and len(started) & (len(started) - 1) == 0:
            self._tasks[machine or ""] = [old for old in started if not old.done()]
        return task

    def _process_events(self, _events: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]  # a deque of handles, private to asyncio since 3.4
        if len(ready) > 1:
            handles = list(ready)
            self._random.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        self.steps += len(ready)
        super()._run_once()  # type: ignore[misc]  # private, stable since 3.4


def run(seed: int, main: Callable[[Loop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(loop)` to its end on a fresh loop. Raises what it raises, and Deadlock."""
    loop = Loop(seed)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_without_threads(loop, main))


async def _without_threads(loop: Loop, main: Callable[[Loop], Coroutine[Any, Any, T]]) -> T:
    # a synchronous route would make anyio start a thread that this loop cannot wait for: it waits for a token instead,
    # of which there are none, and the loop reports the deadlock
    anyio.to_thread.current_default_thread_limiter().total_tokens = 0
    return await main(loop)
