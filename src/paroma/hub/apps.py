"""Lets the server parts of Flower apps talk, one task a run: each of their exchanges is one question of the run.

The app sits in a worker and sees means alone. The model that counts is the platform's (`rule.mean`); what the app asks for
next must follow from it. A restart of the hub ends such a run, because what the app had in its memory is lost.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from paroma.hub import bundles
from paroma.hub.runs import RunOver, Runs, SoFar
from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import RunId
from paroma.kernel.store.database import Store
from paroma.learn.flower import contribution as flower, rule
from paroma.learn.flower.names import ENVIRONMENT, SERVE
from paroma.learn.flower.session import open_session
from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.task import Conversation, Task, Workers
from paroma.trust.channel.exchange import Did


class NotTheMean(Refused):
    """The app asks for another model than the mean of the last sum."""

    def __init__(self) -> None:
        super().__init__(
            "the app's server part does something else to the model than averaging it",
            do="use a strategy that averages, such as FedAvg: what sites cannot recompute, they refuse",
        )


class RoundsSpent(Refused):
    """The app asks for more rounds than the run may have."""

    def __init__(self, rounds: int) -> None:
        super().__init__(
            f"the app asks for more than {rounds} rounds", do="let it ask for fewer, or apply for more questions"
        )


class Apps:
    """The server parts at work. One instance a process."""

    def __init__(self, runs: Runs, store: Store, workers: Workers, after: Callable[[Did], None]) -> None:
        """after: told of what follows from each change, once it is durable."""
        self._runs = runs
        self._store = store
        self._workers = workers
        self._after = after
        self._tasks: dict[RunId, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """End the runs whose app was lost with the last process."""
        self._after(await self._store.write(self._runs.restarted))

    def work(self, waiting: Iterable[RunId]) -> None:
        """Start those that wait, and let the others look again."""
        for run in waiting:
            if run not in self._tasks:
                self._tasks[run] = asyncio.get_running_loop().create_task(self._serve(run))
                self._tasks[run].add_done_callback(lambda _, run=run: self._tasks.pop(run, None))  # type: ignore[misc]
        if self._tasks:
            self._runs.tell()

    async def stop(self) -> None:
        """Cut them off."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _serve(self, run: RunId) -> None:
        try:
            await self._talk(run)
        except RunOver:
            return
        except ParomaError as problem:
            why = problem.message
            await self._write(lambda tx: self._runs.fail(tx, run, why))

    async def _talk(self, run: RunId) -> None:
        plan, bundle = await self._store.read(lambda tx: self._app(tx, run))
        session = await open_session(
            self._workers,
            bundle,
            run=flower.number_of(run),
            sites=len(plan.permit.participants),
            run_config=plan.query.run_config,
        )
        before: SoFar | None = None
        async with session:
            async for exchange in session:
                asked = exchange
                if before is not None:
                    mean = before.averaged.model
                    if not rule.follows(exchange.model, mean, before.sites):
                        raise NotTheMean
                    asked = msgspec.structs.replace(exchange, model=mean)
                if asked.number > plan.rounds:
                    raise RoundsSpent(plan.rounds)
                await self._write(lambda tx, asked=asked: self._runs.exchange(tx, run, asked))  # type: ignore[misc]
                before = await self._answer(run, asked.number)
                await session.reply(before.averaged.model, before.averaged.weight, before.sites)
        await self._write(lambda tx: self._runs.conclude(tx, run))

    async def _answer(self, run: RunId, number: int) -> SoFar:
        """Wait for the sum. Raises RunOver when there will be none."""
        while True:
            changed = self._runs.changed  # before looking: what comes meanwhile is not missed
            found = await self._store.read(lambda tx: self._runs.trained(tx, run, number))
            if found is not None:
                return found
            await changed.wait()

    def _app(self, tx: Connection, run: RunId) -> tuple[flower.Plan, bytes]:
        plan = self._runs.app(tx, run)
        return plan, bundles.bundle(tx, plan.query.code)

    async def _write(self, change: Callable[[Connection], Did]) -> None:
        self._after(await self._store.write(change))


class OnDemand:
    """The hub's sandbox, started when the first app comes: a hub without apps needs neither flwr nor the walls."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._starting = asyncio.Lock()
        self._there: Sandbox | None = None

    async def run(self, task: Task) -> bytes:
        """As the sandbox does. Raises SandboxIncomplete, PreloadFailed as well."""
        return await (await self._ready()).run(task)

    async def converse(self, task: Task) -> Conversation:
        """As the sandbox does. Raises SandboxIncomplete, PreloadFailed as well."""
        return await (await self._ready()).converse(task)

    async def stop(self) -> None:
        """End it, if it was started."""
        if self._there is not None:
            await self._there.stop()

    async def _ready(self) -> Sandbox:
        async with self._starting:
            if self._there is None:
                self._there = await Sandbox.start((SERVE,), environment=ENVIRONMENT, notes=self._notes)
            return self._there
