"""A database, its transactions and their order.

A room writes plain functions over a `Connection`; the program runs them with `Store.write`. What one `work` does
happens wholly or not at all, and is durable before `write` returns. Works that wait at the same time share one commit
(group commit), each in a savepoint of its own.

INVARIANT: all writes to a database are in one order, whoever writes. SQLite has one writer; on PostgreSQL a writer
takes an advisory lock at its begin, which ends with its transaction, so that what it reads cannot change before it
commits. A read sees what some number of these writes left, all of them whole. Nobody conflicts, so nobody repeats.

A `work` touches nothing but its connection: where the connection is lost before the commit it is run again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from types import TracebackType
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, insert as _plain_insert, text
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolExhausted

from paroma.kernel.blocking import Blocking
from paroma.kernel.disk import Disk
from paroma.kernel.errors import Unavailable
from paroma.kernel.store.engines import READ, make_engine

T = TypeVar("T")
Work = Callable[[Connection], T]

MOST_TRIES: Final = 4
CLOSE_SECONDS: Final = 10.0  # the longest that `close` waits for what still runs
_IN_TRANSACTION: Final = 2  # libpq's PQTRANS_INTRANS: neither idle nor failed
_LOOK: Final = "look at its disk and its log, then repeat; nothing of this transaction was acknowledged"


class StoreUnavailable(Unavailable):
    """The database cannot be written or reached: nothing of this transaction was acknowledged."""


@dataclass(slots=True)
class _Waiting:
    work: Work[Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Line:
    """Who waits for a commit in one loop, and the task that serves them."""

    loop: asyncio.AbstractEventLoop
    waiting: deque[_Waiting]
    server: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Running:
    """Counts the transactions that run, over all threads; after `close` none begins."""

    count: int = 0
    closed: bool = False
    changed: Condition = field(default_factory=Condition)

    def __enter__(self) -> None:
        with self.changed:
            if self.closed:
                raise _stopped()
            self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.count -= 1
            self.changed.notify_all()

    def close(self) -> None:
        """Begin nothing more, and wait for what runs, at most CLOSE_SECONDS."""
        with self.changed:
            self.closed = True
            self.changed.wait_for(lambda: not self.count, CLOSE_SECONDS)


class Store:
    """One database. Made by `open_store`."""

    def __init__(self, engine: Engine, blocking: Blocking, disk: Disk) -> None:
        self.engine = engine
        self._blocking = blocking
        self._disk = disk
        self._line: _Line | None = None
        self._running = _Running()

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction; return when it is durable. Raises what `work` raises, StoreUnavailable.

        Who is cancelled while waiting does not know whether it happened, as after a kill; the others are not touched.
        """
        loop = asyncio.get_running_loop()
        line = self._line
        if line is None or line.loop is not loop:  # a command may run several loops, one after the other
            line = self._line = _Line(loop, deque())
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(_look_at)
        line.waiting.append(_Waiting(work, done))
        if line.server is None or line.server.done():
            line.server = loop.create_task(self._serve(line))
        return await asyncio.shield(done)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent view; nothing it writes is kept."""
        return await self._blocking.run(lambda: self.read_now(work))

    def read_now(self, work: Work[T]) -> T:
        """`read` for commands, without a loop."""

        def once() -> T:
            with self.engine.connect().execution_options(**READ[self.dialect]) as connection:
                return work(connection)

        with self._running:
            return _repeated(once)

    def write_now(self, work: Work[T]) -> T:
        """`write` for commands, without a loop."""
        (outcome,) = self._commit([work])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the outcome of the only work, which returns T

    async def _serve(self, line: _Line) -> None:
        while line.waiting:
            batch = list(line.waiting)
            line.waiting.clear()
            commit = partial(self._commit, [waiting.work for waiting in batch])
            try:
                outcomes = await self._blocking.run(commit)
            except Exception as problem:  # noqa: BLE001  # handed to everyone who shared this commit
                outcomes = [problem] * len(batch)
            except BaseException:  # the loop is being stopped, or this process is being killed in a simulation
                _settle([*batch, *line.waiting], [_stopped() for _ in (*batch, *line.waiting)])
                line.waiting.clear()
                raise
            _settle(batch, outcomes)

    def _commit(self, works: list[Work[Any]]) -> list[Any]:
        """All works in one transaction; the outcomes, an exception for each that failed."""
        with self._running:
            return _repeated(lambda: self._transact(works))

    def _transact(self, works: list[Work[Any]]) -> list[Any]:
        with self.engine.connect() as connection:
            transaction = connection.begin()
            if len(works) == 1:  # needs no savepoint: where it fails, there is nothing else to keep
                failed, outcome = _tried(connection, works[0])
                if failed:
                    transaction.rollback()
                    return [outcome]
                outcomes = [outcome]
            else:
                outcomes = [_in_savepoint(connection, work) for work in works]
            if not _intact(connection):  # PostgreSQL would answer the commit by rolling back, and call that a success
                raise StoreUnavailable("a work went on after the database had failed it", do=_LOOK)
            try:
                self._disk.commit(transaction.commit)
            except DBAPIError as problem:  # it may have happened: nothing is repeated, and nothing acknowledged
                raise _unavailable(problem) from problem
            except OSError as problem:
                raise StoreUnavailable(
                    f"the database cannot write: {problem.strerror or problem}",
                    do="free space on its disk, then repeat; nothing was acknowledged",
                ) from problem
            return outcomes

    def close(self) -> None:
        """Wait for the reads and writes that run, also those whose callers were cancelled; give back all connections.

        Whoever comes later is told that the program is stopping.
        """
        self._running.close()
        self.engine.dispose()


def open_store(url: str, blocking: Blocking, disk: Disk) -> Store:
    """Open the database at `url`: `sqlite:///folder/file.db` or `postgresql+psycopg://...`.

    Asserts on every connection that the settings are as `engines` says.
    Raises StoreUnsafe, StoreUnavailable.
    """
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
    except DBAPIError as problem:
        raise _unavailable(problem) from problem
    return Store(engine, blocking, disk)


def upsert(connection: Connection, table: Any) -> Any:
    """`insert` of the connection's dialect, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if connection.dialect.name == "sqlite":
        return sqlite_insert(table)
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # all its drivers come along: 40 ms, where SQLite starts

        return insert(table)
    return _plain_insert(table)


def _repeated(once: Callable[[], T]) -> T:
    """What `once` returns; again where its connection was lost, or it was in a deadlock, before anything was committed.

    Raises StoreUnavailable.
    """
    for left in reversed(range(MOST_TRIES)):
        try:
            return once()
        except PoolExhausted as problem:
            raise StoreUnavailable("all connections to the database are in use", do="repeat in a moment") from problem
        except DBAPIError as problem:
            if not left or not (_deadlock(problem) or problem.connection_invalidated):
                raise _unavailable(problem) from problem
    raise AssertionError("the loop returns or raises")


def _tried(connection: Connection, work: Work[Any]) -> tuple[bool, Any]:
    """Whether `work` failed, and its outcome. Raises DBAPIError where the transaction is no longer of any use."""
    try:
        return False, work(connection)
    except DBAPIError as problem:
        if _deadlock(problem) or problem.connection_invalidated:
            raise
        return True, _unavailable(problem)
    except Exception as problem:  # noqa: BLE001  # handed to whoever asked for this work, by `write`
        return True, problem


def _in_savepoint(connection: Connection, work: Work[Any]) -> Any:
    savepoint = connection.begin_nested()
    failed, outcome = _tried(connection, work)
    if failed:
        savepoint.rollback()  # raises, for all who share it, where SQLite has rolled back everything (a full disk)
    else:
        savepoint.commit()
    return outcome


def _intact(connection: Connection) -> bool:
    """Whether the transaction still stands: no statement failed in it unnoticed."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return int(driver.info.transaction_status) == _IN_TRANSACTION


def _deadlock(problem: DBAPIError) -> bool:
    return getattr(problem.orig, "sqlstate", None) == "40P01"  # an upgrade that met a reader


def _settle(batch: Sequence[_Waiting], outcomes: Sequence[Any]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.done.done() or waiting.done.get_loop().is_closed():
            continue
        if isinstance(outcome, BaseException):
            waiting.done.set_exception(outcome)
        else:
            waiting.done.set_result(outcome)


def _look_at(done: asyncio.Future[Any]) -> None:
    # whoever waited may have been cancelled: asyncio would then complain that nobody looked
    if not done.cancelled():
        done.exception()


def _unavailable(problem: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database answered `{str(problem.orig).splitlines()[0] if problem.orig else problem}`",
        do=_LOOK,
    )


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("the program is stopping", do="repeat after the restart; nothing was acknowledged")
