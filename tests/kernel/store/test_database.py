import asyncio
import contextlib
import errno
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from paroma.kernel.blocking import Inline, Threads
from paroma.kernel.disk import SystemDisk
from paroma.kernel.store.database import StoreUnavailable, open_store, upsert
from paroma.kernel.store.engines import _LOCK, BUSY_SECONDS, PRAGMAS, StoreUnsafe
from paroma.lab.postgres import Postgres
from paroma.lab.simulation.disk import Fault, FaultyDisk, at, from_then_on
from paroma.lab.simulation.loop import SimulatedKill

METADATA = MetaData()
NOTES = Table(
    "test_notes", METADATA, Column("name", String, primary_key=True), Column("value", Integer, nullable=False)
)


class Wrong(Exception):
    pass


def put(name, value=0):
    return lambda tx: tx.execute(insert(NOTES).values(name=name, value=value))


def names(tx):
    return set(tx.execute(select(NOTES.c.name)).scalars())


def add_one(tx):
    """Read, then write what was read and one: loses counts unless writes are in one order."""
    now = tx.execute(select(NOTES.c.value).where(NOTES.c.name == "count")).scalar_one()
    tx.execute(update(NOTES).where(NOTES.c.name == "count").values(value=now + 1))


@pytest.fixture
def notes(store):
    METADATA.create_all(store.engine)
    return store


def test_what_was_written_is_read(notes):
    async def course():
        await notes.write(put("a"))
        return await notes.read(names)

    assert asyncio.run(course()) == {"a"}


def test_a_work_that_raises_leaves_nothing_and_its_neighbours_in_the_same_commit_stay(notes):
    def half(tx):
        put("half")(tx)
        raise Wrong

    async def course():
        return await asyncio.gather(
            notes.write(put("a")),
            notes.write(half),
            notes.write(put("a")),
            notes.write(put("b")),
            return_exceptions=True,
        )

    first, wrong, twice, last = asyncio.run(course())
    assert isinstance(wrong, Wrong)
    assert isinstance(twice, StoreUnavailable)  # the name is taken
    assert not isinstance(first, Exception)
    assert not isinstance(last, Exception)
    assert notes.read_now(names) == {"a", "b"}


def test_works_that_wait_at_the_same_time_share_one_commit(new_store):
    disk = FaultyDisk(SystemDisk())
    store = new_store(disk=disk)
    METADATA.create_all(store.engine)

    async def course():
        await asyncio.gather(*(store.write(put(f"n{i}")) for i in range(100)))

    asyncio.run(course())
    assert len(store.read_now(names)) == 100
    assert disk.writes <= 3


def test_a_read_writes_nothing(notes):
    with pytest.raises(StoreUnavailable):
        notes.read_now(put("a"))
    assert notes.read_now(names) == set()
    notes.write_now(put("b"))  # the connection that was read-only writes again


def test_a_read_sees_one_moment(notes):
    def twice(tx):
        before = names(tx)
        notes.write_now(put("between"))
        return before, names(tx)

    assert notes.read_now(twice) == (set(), set())
    assert notes.read_now(names) == {"between"}


@pytest.mark.parametrize("fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER, Fault.FULL], ids=lambda fault: fault.name)
def test_a_commit_that_fails_is_acknowledged_to_nobody(new_store, fault):
    disk = FaultyDisk(SystemDisk(), at(1, fault))
    store = new_store(disk=disk)
    METADATA.create_all(store.engine)

    async def course():
        failed = await asyncio.gather(store.write(put("a")), store.write(put("b")), return_exceptions=True)
        await store.write(put("c"))
        return failed

    assert [type(outcome) for outcome in asyncio.run(course())] == [StoreUnavailable, StoreUnavailable]
    left = {"a", "b"} if fault is Fault.FAILS_AFTER else set()
    assert store.read_now(names) == left | {"c"}


@pytest.mark.parametrize(
    "fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER, Fault.KILL_BEFORE, Fault.KILL_AFTER], ids=lambda fault: fault.name
)
@pytest.mark.parametrize("nth", range(1, 7))
def test_whichever_durable_write_fails_what_was_acknowledged_is_there_and_a_repeat_changes_nothing(
    new_store, fault, nth
):
    """A retrying writer of five numbered notes: after the fault, and a restart where it was a kill, all are there once."""
    disk = FaultyDisk(SystemDisk(), at(nth, fault))
    store = new_store(disk=disk)
    METADATA.create_all(store.engine)
    acknowledged = set()

    def note(name):
        return lambda tx: tx.execute(upsert(tx, NOTES).values(name=name, value=1).on_conflict_do_nothing())

    for number in range(5):
        for _attempt in range(2):
            try:
                store.write_now(note(f"n{number}"))
            except StoreUnavailable:
                continue
            except SimulatedKill:
                store.close()
                store = new_store()
                assert acknowledged <= store.read_now(names)
                continue
            acknowledged.add(f"n{number}")
            break
    assert acknowledged == {f"n{number}" for number in range(5)}
    assert store.read_now(
        lambda tx: tx.execute(select(func.count(), func.sum(NOTES.c.value)).select_from(NOTES)).one()
    ) == (5, 5)


def test_a_disk_that_stays_full_refuses_each_write_and_still_reads(new_store):
    disk = FaultyDisk(SystemDisk(), from_then_on(2, Fault.FULL))
    store = new_store(disk=disk)
    METADATA.create_all(store.engine)
    store.write_now(put("a"))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.write_now(put("b"))
    assert store.read_now(names) == {"a"}


def test_a_sqlite_file_that_cannot_grow_fails_everyone_in_the_commit_and_nothing_is_half_done(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'small.db'}", Inline(), SystemDisk())
    METADATA.create_all(store.engine)
    # a page limit is SQLite's own full disk; it holds for one connection, so the pool is emptied into one
    store.engine.dispose()
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar_one()

    def large(tx):
        tx.exec_driver_sql(f"pragma max_page_count={pages + 2}")
        tx.execute(insert(NOTES).values(name="x" * 50_000, value=1))

    async def course():
        return await asyncio.gather(
            store.write(put("a")), store.write(large), store.write(put("b")), return_exceptions=True
        )

    outcomes = asyncio.run(course())
    assert isinstance(outcomes[1], StoreUnavailable)
    acknowledged = {name for name, outcome in zip("a-b", outcomes, strict=True) if not isinstance(outcome, Exception)}
    assert store.read_now(names) == acknowledged
    store.close()


def test_counting_writers_lose_no_count(notes):
    """Over several connections at once: SQLite makes them wait, PostgreSQL makes the loser run again."""
    notes.write_now(put("count"))
    failures = []

    def count_ten():
        try:
            for _ in range(10):
                notes.write_now(add_one)
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=count_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert notes.read_now(lambda tx: tx.execute(select(NOTES.c.value)).scalar_one()) == 40


def test_two_programs_that_count_in_each_others_way_lose_no_count(notes, new_store):
    other = new_store()
    notes.write_now(put("count"))

    async def course():
        await asyncio.gather(*(store.write(add_one) for _ in range(20) for store in (notes, other)))

    asyncio.run(course())
    assert notes.read_now(lambda tx: tx.execute(select(NOTES.c.value)).scalar_one()) == 40


def test_a_cancelled_writer_disturbs_nobody(notes):
    async def course():
        writers = [asyncio.create_task(notes.write(put(f"n{i}"))) for i in range(50)]
        await asyncio.sleep(0)
        for writer in writers[::2]:
            writer.cancel()
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
        await notes.write(put("after"))
        return outcomes

    outcomes = asyncio.run(course())
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    there = notes.read_now(names)
    assert {f"n{i}" for i in range(1, 50, 2)} | {"after"} <= there  # of the others it is not known, as after a kill


def test_one_loop_after_another_may_use_a_store_also_when_the_first_ended_in_the_middle(notes):
    async def leave_early():
        loose = asyncio.ensure_future(notes.write(put("loose")))
        await asyncio.sleep(0)
        return loose

    asyncio.run(leave_early())
    asyncio.run(notes.write(put("a")))
    asyncio.run(notes.write(put("b")))
    assert {"a", "b"} <= notes.read_now(names)


def test_two_loops_in_two_threads_may_use_a_store_at_once(notes):
    failures = []

    def work(prefix):
        async def course():
            for i in range(20):
                await asyncio.gather(notes.write(put(f"{prefix}{i}")), notes.read(names))

        try:
            asyncio.run(course())
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=work, args=(prefix,)) for prefix in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(notes.read_now(names)) == 60


def test_a_broken_connection_is_an_error_and_the_next_write_works(notes):
    if notes.dialect != "postgresql":
        return

    def cut_own_line(tx):
        put("lost")(tx)
        tx.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    async def course():
        outcomes = await asyncio.gather(
            notes.write(put("a")), notes.write(cut_own_line), notes.write(put("b")), return_exceptions=True
        )
        await notes.write(put("after"))
        return outcomes

    outcomes = asyncio.run(course())
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert notes.read_now(names) == {"after"}


def statements_of(store):
    """Every statement that `store` runs from now on."""
    said = []
    event.listen(
        store.engine, "before_cursor_execute", lambda _c, _k, statement, *_: said.append(statement.split(" (")[0])
    )
    return said


def test_a_write_of_one_work_costs_its_own_statements_and_one_to_begin(notes):
    notes.write_now(put("warm"))
    said = statements_of(notes)
    notes.write_now(put("a"))
    begin = {"sqlite": "BEGIN IMMEDIATE", "postgresql": said[0]}[notes.dialect]
    assert said == [begin, "INSERT INTO test_notes"]
    assert notes.dialect == "sqlite" or "pg_advisory_xact_lock" in begin


def test_what_a_connection_may_do_is_set_when_it_changes_only(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}", Inline(), SystemDisk())
    METADATA.create_all(store.engine)
    said = statements_of(store)
    for _ in range(3):
        store.read_now(names)
    for name in "ab":
        store.write_now(put(name))
    store.close()
    assert [one for one in said if "query_only" in one] == ["PRAGMA query_only=1", "PRAGMA query_only=0"]


@pytest.mark.parametrize("together", [1, 3], ids=["alone", "in a commit of three"])
def test_a_work_that_ends_its_own_transaction_is_not_acknowledged(notes, together):
    def gone(tx):
        put("gone")(tx)
        tx.exec_driver_sql("rollback")

    async def course():
        others = [notes.write(put(f"n{i}")) for i in range(together - 1)]
        return await asyncio.gather(notes.write(gone), *others, return_exceptions=True)

    outcomes = asyncio.run(course())
    assert isinstance(outcomes[0], StoreUnavailable)
    acknowledged = {f"n{i}" for i, outcome in enumerate(outcomes[1:]) if not isinstance(outcome, Exception)}
    assert acknowledged <= notes.read_now(names)
    assert "gone" not in notes.read_now(names)
    notes.write_now(put("after"))


def test_a_work_that_goes_on_after_the_database_failed_it_is_acknowledged_only_where_it_happened(notes):
    """PostgreSQL gives up the whole transaction, then answers a commit by a rollback that looks like a success."""

    def stubborn(tx):
        put("a")(tx)
        with contextlib.suppress(DBAPIError):
            put("a")(tx)

    try:
        notes.write_now(stubborn)
    except StoreUnavailable:
        assert notes.read_now(names) == set()
    else:
        assert notes.read_now(names) == {"a"}
    notes.write_now(put("b"))


def test_of_two_programs_that_append_to_one_list_nobody_fails(notes, new_store):
    """Each takes the next number, which is unique: with optimistic transactions the loser is told that its key is taken."""
    other = new_store()

    def append(tx):
        size = tx.execute(select(func.count()).select_from(NOTES)).scalar_one()
        put(f"n{size}")(tx)

    def program(store):
        async def course():
            for _ in range(10):
                await asyncio.gather(*(store.write(append) for _ in range(4)))

        asyncio.run(course())

    with ThreadPoolExecutor() as pool:
        list(pool.map(program, (notes, other)))
    assert notes.read_now(names) == {f"n{i}" for i in range(80)}


def test_closing_waits_for_a_read_whose_caller_was_cancelled(new_store):
    store = new_store()
    METADATA.create_all(store.engine)
    began, may_end, seen = threading.Event(), threading.Event(), []

    def slow(tx):
        began.set()
        may_end.wait(10)
        seen.append(names(tx))

    async def course():
        reader = asyncio.create_task(store.read(slow))
        while not began.is_set():
            await asyncio.sleep(0.001)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    asyncio.run(course())
    threading.Timer(0.1, may_end.set).start()
    store.close()
    assert seen == [set()]
    assert store.engine.pool.checkedout() == 0


def test_a_closed_store_says_that_the_program_stops(new_store):
    store = new_store()
    METADATA.create_all(store.engine)
    store.close()
    store.close()
    for use in (
        lambda: store.read_now(names),
        lambda: store.write_now(put("a")),
        lambda: asyncio.run(store.write(put("a"))),
    ):
        with pytest.raises(StoreUnavailable, match="stopping"):
            use()


CUT = text(
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where pid <> pg_backend_pid() and application_name = :name"
)


@pytest.fixture
def named(postgres):
    """A store on PostgreSQL whose connections carry a name, and what cuts all of them on the server; how many it cut."""
    name = f"cut-{os.urandom(4).hex()}"
    operator = create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    threads = Threads(4, name)

    def cut():
        with operator.connect() as connection:
            return connection.execute(CUT, {"name": name}).scalar_one()

    with operator.connect() as connection:
        connection.execute(text(f'create schema "{name}"'))
    url = f"{postgres.url}&application_name={name}&options=-csearch_path%3D{name}"
    store = open_store(url, threads, SystemDisk())
    METADATA.create_all(store.engine)
    yield store, cut
    store.close()
    threads.close()
    with operator.connect() as connection:
        connection.execute(text(f'drop schema "{name}" cascade'))
    operator.dispose()


def test_connections_that_were_cut_while_idle_are_noticed_by_nobody(named):
    store, cut = named
    for number in range(3):
        assert cut() >= 1
        store.write_now(put(f"n{number}"))
        assert cut() >= 1
        assert f"n{number}" in store.read_now(names)


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.soak)])
def test_however_often_the_server_cuts_a_writer_off_what_was_acknowledged_is_there_once(named, seconds):
    store, cut = named
    acknowledged, unknown, until = set(), set(), time.monotonic() + seconds

    async def write(name):
        try:
            await store.write(put(name))
        except StoreUnavailable:
            unknown.add(name)
        else:
            acknowledged.add(name)

    async def course():
        number, cuts = 0, 0
        cutting = asyncio.get_running_loop().run_in_executor
        while time.monotonic() < until or ((cuts < 10 or len(acknowledged) <= 20) and time.monotonic() < until + 60):
            batch = [write(f"n{number + i}") for i in range(8)]
            number += 8
            pause = asyncio.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.01)
            _, _, cut_now = await asyncio.gather(asyncio.gather(*batch), pause, cutting(None, cut))
            cuts += cut_now
        return cuts

    cuts = asyncio.run(course())
    store.write_now(put("after"))  # by itself: nobody opened it again
    there = store.read_now(names)
    assert acknowledged <= there <= acknowledged | unknown | {"after"}
    assert cuts >= 10
    assert len(acknowledged) > 20


def test_after_kill_9_of_a_server_process_in_the_middle_of_writes_what_was_acknowledged_is_there():
    """PostgreSQL then ends all connections and recovers from its log, as after a power cut; the program goes on by itself."""
    before, unknown, after = set(), set(), set()
    with Postgres.start() as server:
        threads = Threads(4, "killed")
        store = open_store(server.url, threads, SystemDisk())
        METADATA.create_all(store.engine)
        victim = store.read_now(lambda tx: tx.execute(text("select pg_backend_pid()")).scalar_one())

        async def write(name):
            try:
                await store.write(put(name))
            except StoreUnavailable:
                unknown.add(name)
                await asyncio.sleep(0.02)
            else:
                (after if unknown else before).add(name)

        async def course():
            ends, killed = time.monotonic() + 90, False
            for number in itertools.count(step=8):
                batch = asyncio.gather(*(write(f"n{number + i}") for i in range(8)))
                if len(before) > 100 and not killed:
                    await asyncio.sleep(0.002)
                    os.kill(victim, signal.SIGKILL)
                    killed = True
                await batch
                if len(after) > 20:
                    return
                assert time.monotonic() < ends

        asyncio.run(course())
        there = store.read_now(names)
        store.close()
        threads.close()
        assert "database system was interrupted" in (server.folder / "log").read_text()
    assert before | after <= there <= before | after | unknown


def test_a_postgresql_that_may_lose_what_it_acknowledged_is_not_opened(postgres):
    with pytest.raises(StoreUnsafe, match="synchronous_commit"):
        open_store(f"{postgres.url}&options=-csynchronous_commit%3Doff", Inline(), SystemDisk())


def test_a_writer_does_not_wait_for_ever_for_another(postgres):
    store = open_store(postgres.url, Inline(), SystemDisk())
    other = open_store(postgres.url, Inline(), SystemDisk())

    def hold(_tx):
        with other.engine.connect().execution_options(paroma_read=True) as connection:  # begins without the lock
            connection.execute(text("set lock_timeout='50ms'"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                connection.execute(text("select pg_advisory_xact_lock(:a, hashtext(current_schema()))"), {"a": _LOCK})
            connection.rollback()
            assert connection.execute(text("show lock_timeout")).scalar_one() == f"{BUSY_SECONDS}s"
            connection.rollback()

    store.write_now(hold)
    store.close()
    other.close()


def test_sqlite_is_opened_as_it_must_be(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'folder' / 'a.db'}", Inline(), SystemDisk())
    with store.engine.connect() as connection:
        found = tuple((name, connection.exec_driver_sql(f"pragma {name}").scalar_one()) for name, _ in PRAGMAS)
    assert found == PRAGMAS
    assert dict(found)["synchronous"] == 2
    assert (tmp_path / "folder" / "a.db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "folder" / "a.db-wal").stat().st_mode & 0o077 == 0
    store.close()


def test_a_sqlite_that_cannot_keep_a_write_ahead_log_is_not_opened(tmp_path):
    # without locks SQLite has no shared memory, as on a network file system, and silently stays in its old mode
    with pytest.raises(StoreUnsafe, match="local disk"):
        open_store(f"sqlite:///file:{tmp_path / 'a.db'}?vfs=unix-none&uri=true", Inline(), SystemDisk())


def test_a_database_that_is_not_there_says_so():
    with pytest.raises(StoreUnavailable, match="nothing of this transaction"):
        open_store("postgresql+psycopg://nobody@/none?host=/nonexistent", Inline(), SystemDisk())


WRITER = """
import asyncio, sys
from sqlalchemy import text
from paroma.kernel.blocking import Threads
from paroma.kernel.disk import SystemDisk
from paroma.kernel.store.database import open_store

store = open_store(sys.argv[1], Threads(2), SystemDisk())
store.write_now(lambda tx: tx.execute(text("create table if not exists kept (number integer primary key)")))

async def one(number):
    await store.write(lambda tx: tx.execute(text("insert into kept values (:n)"), {"n": number}))
    print(number, flush=True)

async def main():
    number = int(sys.argv[2])
    while True:
        await asyncio.gather(*(one(number + i) for i in range(5)))
        number += 5

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", [3, pytest.param(120, marks=pytest.mark.soak)])
def test_after_kill_9_every_acknowledged_commit_is_there(tmp_path, seconds):
    url, acknowledged, until = f"sqlite:///{tmp_path / 'killed.db'}", set(), time.monotonic() + seconds
    start, kills = 0, 0
    while time.monotonic() < until or ((kills < 3 or len(acknowledged) <= 20) and time.monotonic() < until + 60):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url, str(start)], stdout=subprocess.PIPE)
        try:
            first = writer.stdout.readline()
            time.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.15)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
        lines = (first + writer.stdout.read()).split(b"\n")[:-1]  # a line cut off was not heard
        writer.stdout.close()
        writer.wait()
        acknowledged |= {int(line) for line in lines if line}
        store = open_store(url, Inline(), SystemDisk())
        there = set(store.read_now(lambda tx: tx.execute(text("select number from kept")).scalars().all()))
        store.close()
        assert acknowledged <= there
        start, kills = max(there, default=-1) + 1, kills + 1
    assert kills >= 3
    assert len(acknowledged) > 20
    assert sqlite3.connect(tmp_path / "killed.db").execute("pragma integrity_check").fetchone() == ("ok",)


def test_the_errors_name_the_next_step(new_store):
    store = new_store(disk=FaultyDisk(SystemDisk(), at(1, Fault.FULL)))
    METADATA.create_all(store.engine)
    with pytest.raises(StoreUnavailable, match="free space"):
        store.write_now(put("a"))
    assert os.strerror(errno.ENOSPC) == "No space left on device"


def test_threads_are_given_back(tmp_path):
    threads = Threads(2, "kernel-test")
    store = open_store(f"sqlite:///{Path(tmp_path) / 'a.db'}", threads, SystemDisk())
    METADATA.create_all(store.engine)
    asyncio.run(store.write(put("a")))
    store.close()
    threads.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kernel-test")]
