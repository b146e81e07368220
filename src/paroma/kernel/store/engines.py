"""How each kind of database is opened, and how a transaction begins on it. `make_engine` is the only maker.

Everything that the two kinds do not share stands here; what the rooms say to them is the same.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import QueuePool

from paroma.kernel.errors import ParomaError

PRAGMAS = (
    ("journal_mode", "wal"),
    ("synchronous", 2),  # FULL: WAL with NORMAL lost 3,578 of 153,557 acknowledged commits when the power was cut
    ("secure_delete", 1),  # what is erased is overwritten, also in free pages
    ("foreign_keys", 1),
    ("temp_store", 2),  # sorting leaves no plain rows in temporary files
)
POSTGRES_SETTINGS: Final = (("fsync", "on"), ("full_page_writes", "on"))
"""What a PostgreSQL must answer; `synchronous_commit` may be anything but `off`."""
BUSY_SECONDS: Final = 20  # the longest that a writer waits for the others
IDLE_SECONDS: Final = 60  # the longest that a program which halts in the middle of a write holds up the others
_CONNECT: Final = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}
_LOCK: Final = 0x7061726F  # "paro": any number that no other program on this PostgreSQL uses
READ: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {"paroma_read": True},
    "postgresql": {"paroma_read": True, "postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
}
"""Options of a connection that only reads, by dialect: one consistent view, and nothing it writes is kept."""


class StoreUnsafe(ParomaError):
    """The database does not hold what it promises: nothing may be acknowledged on it."""


def make_engine(url: str) -> Engine:
    """An engine whose every connection was asked for its settings. Connects to nothing yet."""
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
        engine = create_engine(
            parsed,
            isolation_level="READ COMMITTED",  # a writer sees everything that was committed before it took the lock
            pool_size=4,
            max_overflow=4,  # a program has four threads, and its loop reads now and then
            connect_args={name: value for name, value in _CONNECT.items() if name not in parsed.query},
        )
        event.listen(engine, "connect", _prepare_postgres)
        event.listen(engine, "begin", _begin_alone)
    return engine


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


def _prepare_postgres(connection: Any, _record: object) -> None:
    names = ("synchronous_commit", *(name for name, _ in POSTGRES_SETTINGS))
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    found = connection.execute(
        f"select set_config('lock_timeout', '{BUSY_SECONDS}s', false),"
        f" set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', false), {asked}"
    ).fetchone()[2:]
    connection.commit()
    if found[0] == "off" or found[1:] != tuple(value for _, value in POSTGRES_SETTINGS):
        connection.close()
        raise StoreUnsafe(
            f"PostgreSQL answers {dict(zip(names, found, strict=True))}: it can lose what it acknowledged",
            do="set all of these to `on`, for this database and this role, then start again",
        )


def _begin_immediate(connection: Connection) -> None:
    # a writer takes the lock before it reads, so that two writers never read the same past; a reader takes none
    reads = bool(connection.get_execution_options().get("paroma_read"))
    if connection.info.get("paroma_reads") is not reads:  # of this connection to SQLite, over its whole life
        connection.exec_driver_sql(f"PRAGMA query_only={int(reads)}")
        connection.info["paroma_reads"] = reads
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _begin_alone(connection: Connection) -> None:
    # READ COMMITTED, as a transaction with a snapshot would take it before it waits here, and then see an old state;
    # the lock belongs to the schema, and is given back by the server after the commit can be seen
    if not connection.get_execution_options().get("paroma_read"):
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_LOCK}, hashtext(coalesce(current_schema(), '')))")


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its log files take over the mode
