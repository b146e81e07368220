"""A database, its transactions and their order.

A room writes plain functions over a `Connection`; the program runs them with `Store.write`. What one `work` does
happens wholly or not at all, and is durable before `write` returns. Works that wait at the same time share one commit
(group commit), each in a savepoint of its own. All writes are in one order: SQLite has one writer, PostgreSQL runs
them SERIALIZABLE.

A `work` touches nothing but its connection: on PostgreSQL it may be run again after a conflict.
"""

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert as _plain_insert, make_url, text
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from paroma.kernel.blocking import Blocking
from paroma.kernel.disk import Disk
from paroma.kernel.errors import ParomaError, Unavailable

T = TypeVar("T")
Work = Callable[[Connection], T]

PRAGMAS = (
    ("journal_mode", "wal"),
    ("synchronous", 2),  # FULL: WAL with NORMAL lost 3,578 of 153,557 acknowledged commits when the power was cut
    ("secure_delete", 1),  # what is erased is overwritten, also in free pages
    ("foreign_keys", 1),
    ("temp_store", 2),  # sorting leaves no plain rows in temporary files
)
MOST_RETRIES = 20
BUSY_SECONDS = 20
_READ_ONLY: Final[dict[str, Any]] = {"paroma_read": True, "postgresql_readonly": True}


class StoreUnsafe(ParomaError):
    """The database does not hold what it promises: nothing may be acknowledged on it."""


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


class Store:
    """One database. Made by `open_store`."""

    def __init__(self, engine: Engine, blocking: Blocking, disk: Disk) -> None:
        self.engine = engine
        self._blocking = blocking
        self._disk = disk
        self._line: _Line | None = None

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
        for attempt in range(MOST_RETRIES):
            try:
                with self.engine.connect().execution_options(**_READ_ONLY) as connection:
                    return work(connection)
            except DBAPIError as problem:
                if not _again(problem, attempt):
                    raise _unavailable(problem) from problem
        raise AssertionError("the loop returns or raises")

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
        """All works in one transaction, each in a savepoint; the outcomes, an exception for each that failed."""
        for attempt in range(MOST_RETRIES):
            try:
                with self.engine.connect() as connection:
                    transaction = connection.begin()
                    outcomes = [_in_savepoint(connection, work) for work in works]
                    self._disk.commit(transaction.commit)
                    return outcomes
            except DBAPIError as problem:
                if not _again(problem, attempt):
                    raise _unavailable(problem) from problem
            except OSError as problem:
                raise StoreUnavailable(
                    f"the database cannot write: {problem.strerror or problem}",
                    do="free space on its disk, then repeat; nothing was acknowledged",
                ) from problem
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def open_store(url: str, blocking: Blocking, disk: Disk) -> Store:
    """Open the database at `url`: `sqlite:///folder/file.db` or `postgresql+psycopg://...`.

    Asserts on every SQLite connection that its settings are those in `PRAGMAS`. Raises StoreUnsafe, StoreUnavailable.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        on_disk = bool(parsed.database) and parsed.database != ":memory:"
        if on_disk and not str(parsed.database).startswith("file:"):
            _make_file(Path(str(parsed.database)))
        engine = create_engine(
            parsed,
            poolclass=QueuePool,
            pool_size=4 if on_disk else 1,  # a second connection to memory would see another, empty database
            max_overflow=8 if on_disk else 0,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    else:
        engine = create_engine(parsed, isolation_level="SERIALIZABLE", pool_size=8, max_overflow=8, pool_pre_ping=True)
    try:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
    except DBAPIError as problem:
        raise _unavailable(problem) from problem
    return Store(engine, blocking, disk)


def upsert(connection: Connection, table: Any) -> Any:
    """`insert` of the connection's dialect, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return {"sqlite": sqlite_insert, "postgresql": postgres_insert}.get(connection.dialect.name, _plain_insert)(table)


def _in_savepoint(connection: Connection, work: Work[Any]) -> Any:
    savepoint = connection.begin_nested()
    try:
        outcome = work(connection)
    except DBAPIError as problem:
        if _conflict(problem) or problem.connection_invalidated:
            raise
        savepoint.rollback()  # raises, for all who share it, where SQLite has rolled back everything (a full disk)
        return _unavailable(problem)
    except Exception as problem:  # noqa: BLE001  # handed to whoever asked for this work, by `write`
        savepoint.rollback()
        return problem
    savepoint.commit()
    return outcome


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN is replaced by ours
    cursor = connection.cursor()
    for pragma, value in PRAGMAS:
        cursor.execute(f"pragma {pragma}={value}")
    found = [cursor.execute(f"pragma {pragma}").fetchone()[0] for pragma, _ in PRAGMAS]
    wanted = [value for _, value in PRAGMAS]
    memory = not cursor.execute("pragma database_list").fetchone()[2]
    if memory:
        found[0] = wanted[0]
    cursor.close()
    if found != wanted:
        raise StoreUnsafe(
            f"SQLite answers {found} where {wanted} was asked for",
            do="put the database on a local disk: network file systems cannot keep a write-ahead log",
        )


def _begin_immediate(connection: Connection) -> None:
    # a writer takes the lock before it reads, so that two writers never read the same past; a reader takes none
    reads = bool(connection.get_execution_options().get("paroma_read"))
    connection.exec_driver_sql(f"PRAGMA query_only={int(reads)}")
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE" if not connection.get_execution_options().get("paroma_read") else "BEGIN"
    )


def _conflict(problem: DBAPIError) -> bool:
    return getattr(problem.orig, "sqlstate", None) in {"40001", "40P01"}


def _again(problem: DBAPIError, attempt: int) -> bool:
    """Whether to run the transaction once more, after a pause that grows. Only PostgreSQL has such conflicts."""
    if not _conflict(problem) or attempt + 1 == MOST_RETRIES:
        return False
    time.sleep(0.001 * 2 ** min(attempt, 6))
    return True


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


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its log files take over the mode


def _unavailable(problem: DBAPIError) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database answered `{str(problem.orig).splitlines()[0] if problem.orig else problem}`",
        do="look at its disk and its log, then repeat; nothing of this transaction was acknowledged",
    )


def _stopped() -> StoreUnavailable:
    return StoreUnavailable("the program is stopping", do="repeat after the restart; nothing was acknowledged")
