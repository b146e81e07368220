import asyncio
import threading

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import insert, select, update

from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import ParomaError, Unavailable
from paroma.kernel.ids import fresh
from paroma.kernel.randomness import OsRandomness, SeededRandomness
from paroma.trust.audit import checkpoint as checkpoints, log as logs, tables
from paroma.trust.audit.log import FEDERATION, SITE, LogDamaged, LogRaced, LogUnknown
from paroma.trust.audit.merkle import leaf_hash, root_of
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.audit.proofs import ProofInvalid, verify_consistency, verify_inclusion
from paroma.trust.audit.tiles import EntryTooLong, TileMissing, Where, needed, unbundle
from paroma.trust.keys.log_keys import HeldLogKey


def entries_of(first, end):
    return [f"entry {number}".encode() for number in range(first, end)]


def append(store, signer, entries, log=FEDERATION):
    return store.write_now(lambda tx: logs.append(tx, log, entries, signer))


def head_of(store, log=FEDERATION):
    return store.read_now(lambda tx: logs.checkpoint(tx, log))


def check_whole(store, signer, log=FEDERATION):
    """The invariant of the room: head, entries and tiles are of one log."""
    head = head_of(store, log)
    entries = store.read_now(lambda tx: logs.entries(tx, log, 0, 1 << 40))
    assert len(entries) == head.size
    assert root_of(entries) == head.root == store.read_now(lambda tx: logs.root_at(tx, log, head.size))
    assert checkpoints.read(head.note, signer.public) == head
    return entries


@pytest.mark.promise(4)
def test_entries_get_their_places_and_the_head_is_signed(db, signer):
    assert append(db, signer, entries_of(0, 3)) == (0, 1, 2)
    assert append(db, signer, []) == ()
    assert append(db, signer, entries_of(3, 600)) == tuple(range(3, 600))
    assert check_whole(db, signer) == entries_of(0, 600)


@pytest.mark.promise(4)
def test_logs_of_one_database_do_not_mix(db, signer):
    site = CheckpointSigner("site.example/log", HeldLogKey.fresh(SeededRandomness(8)))
    append(db, signer, entries_of(0, 3))
    append(db, site, [b"mine"], SITE)
    assert check_whole(db, signer) == entries_of(0, 3)
    assert check_whole(db, site, SITE) == [b"mine"]
    with pytest.raises(LogDamaged, match="called"):
        append(db, site, [b"x"], FEDERATION)
    with pytest.raises(LogUnknown):
        head_of(db, logs.LogName("none"))


@pytest.mark.promise(4)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.data())
def test_every_proof_of_a_stored_log_holds(db, signer, steps, data):
    log = logs.LogName(fresh("log", OsRandomness()))
    entries = []
    for step in steps:
        new = entries_of(len(entries), len(entries) + step)
        append(db, signer, new, log)
        entries += new
    sizes = sorted(data.draw(st.lists(st.integers(1, len(entries)), min_size=2, max_size=2)))
    number = data.draw(st.integers(0, sizes[1] - 1))

    def check(tx):
        roots = [logs.root_at(tx, log, size) for size in sizes]
        assert roots == [root_of(entries[:size]) for size in sizes]
        consistency = logs.consistency(tx, log, *sizes)
        verify_consistency(*sizes, consistency.hashes, *roots)
        inclusion = logs.inclusion(tx, log, number, sizes[1])
        verify_inclusion(leaf_hash(entries[number]), number, sizes[1], inclusion.hashes, roots[1])

    db.read_now(check)


@pytest.mark.promise(4)
def test_every_tile_that_ever_was_stays_served(db, signer):
    for first in range(0, 700, 50):
        append(db, signer, entries_of(first, first + 50))

    def check(tx):
        for size in range(1, 701):
            assert logs.root_at(tx, FEDERATION, size) == root_of(entries_of(0, size)) or size % 97
        for size in (1, 49, 255, 256, 257, 512, 700):
            for where in needed(0, size):
                data = logs.serve(tx, FEDERATION, where.path)
                if where.level is None:
                    assert unbundle(data, where.width) == entries_of(where.index * 256, where.index * 256 + where.width)
        assert logs.reader(tx, FEDERATION)("checkpoint").decode() == logs.checkpoint(tx, FEDERATION).note
        for where in (Where(0, 2, 189), Where(None, 2, 189), Where(0, 3, 1), Where(1, 0, 3), Where(2, 0, 1)):
            with pytest.raises(TileMissing):
                logs.serve(tx, FEDERATION, where.path)
        for ask in (lambda: logs.inclusion(tx, FEDERATION, 0, 701), lambda: logs.consistency(tx, FEDERATION, 1, 701)):
            with pytest.raises(TileMissing):
                ask()
        with pytest.raises(ProofInvalid):
            logs.inclusion(tx, FEDERATION, 700, 700)

    db.read_now(check)


def test_an_entry_that_is_too_long_leaves_nothing(db, signer):
    append(db, signer, [b"a"])
    with pytest.raises(EntryTooLong):
        append(db, signer, [b"b", b"x" * 65_536])
    assert check_whole(db, signer) == [b"a"]


@pytest.mark.promise(4)
def test_an_act_and_its_entry_are_written_together_or_not_at_all(db, signer):
    def act(tx):
        logs.append(tx, FEDERATION, [b"withdrawn"], signer)
        raise ParomaError("the act failed", do="nothing")

    append(db, signer, [b"a"])
    with pytest.raises(ParomaError, match="the act failed"):
        db.write_now(act)
    assert check_whole(db, signer) == [b"a"]


@pytest.mark.promise(4)
def test_many_writers_at_once_make_one_log(make_store, signer):
    stores = [make_store(), make_store()]
    failures, start = [], threading.Barrier(4)

    def write(store, name):
        start.wait()
        for number in range(12):
            try:
                append(store, signer, [f"{name}.{number}.{part}".encode() for part in range(3)])
            except Exception as problem:
                failures.append(problem)

    threads = [threading.Thread(target=write, args=(stores[n % 2], f"w{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    entries = check_whole(stores[0], signer)
    assert len(entries) == len(set(entries)) == 4 * 12 * 3
    for writer in range(4):  # each batch stands together, and each writer's in its own order
        mine = [entry for entry in entries if entry.startswith(f"w{writer}.".encode())]
        assert mine == [f"w{writer}.{number}.{part}".encode() for number in range(12) for part in range(3)]


@pytest.mark.promise(4)
def test_works_that_share_a_commit_each_have_their_places(db, signer):
    async def many():
        return await asyncio.gather(
            *(db.write(lambda tx, n=n: logs.append(tx, FEDERATION, [str(n).encode()], signer)) for n in range(50))
        )

    places = asyncio.run(many())
    assert sorted(place for (place,) in places) == list(range(50))
    entries = check_whole(db, signer)
    assert all(entries[place] == str(n).encode() for n, (place,) in enumerate(places))


@pytest.mark.promise(4)
def test_the_head_moves_only_from_where_it_was_read(db, signer):
    """The race made by hand: a second head lands between this writer's reading and its swap."""
    append(db, signer, [b"a"])

    class Racing(CheckpointSigner):
        def sign(self, text):
            if "\n2\n" in text:
                other = root_of([b"a", b"theirs"])
                tx.execute(update(tables.LOGS).values(size=2, root=other, note="theirs"))
            return super().sign(text)

    racing = Racing(signer.origin, HeldLogKey.fresh(SeededRandomness(1, "log")))
    with db.engine.connect() as tx:
        with pytest.raises(LogRaced):
            logs.append(tx, FEDERATION, [b"mine"], racing)
        tx.rollback()
    assert check_whole(db, signer) == [b"a"]


class FailingDisk(SystemDisk):
    """Fails the n-th commit, before or after it became durable."""

    def __init__(self, fails_at, *, leaves):
        self.fails_at, self.leaves, self.count = fails_at, leaves, 0

    def commit(self, commit):
        self.count += 1
        if self.count == self.fails_at:
            if self.leaves:
                commit()
            raise OSError(5, "input/output error")
        commit()


@pytest.mark.promise(4)
@pytest.mark.parametrize("leaves", [False, True], ids=["failed and left nothing", "failed but left it"])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_whatever_commit_fails_the_head_is_that_of_the_entries(make_store, signer, fails_at, leaves):
    store = make_store("main", disk=FailingDisk(fails_at, leaves=leaves))
    told = []
    for number in range(4):
        try:
            append(store, signer, [b"%d" % number] * 130)
            told.append(b"%d" % number)
        except Unavailable:
            pass
    after = make_store("main")  # what a restarted program finds
    entries = check_whole(after, signer)
    kept = list(dict.fromkeys(entries))
    assert set(told) <= set(kept)
    assert len(kept) == (4 if leaves else 3)
    append(after, signer, [b"next"])
    assert check_whole(after, signer)[-1] == b"next"


@pytest.mark.promise(4)
@pytest.mark.parametrize("table", ["tile", "torn", "root"])
def test_a_damaged_log_is_never_signed_again(db, signer, table):
    append(db, signer, entries_of(0, 300))
    if table == "torn":
        change = update(tables.TILES).where(tables.TILES.c.level == 0, tables.TILES.c.number == 1).values(hashes=b"")
    elif table == "tile":
        change = (
            update(tables.TILES)
            .where(tables.TILES.c.level == 0, tables.TILES.c.number == 1)
            .values(hashes=bytes(44 * 32))
        )
    else:
        change = update(tables.LOGS).values(root=bytes(32))
    db.write_now(lambda tx: tx.execute(change))
    with pytest.raises(LogDamaged):
        append(db, signer, [b"x"])
    assert head_of(db).size == 300


@pytest.mark.promise(4)
def test_a_log_restored_to_an_older_state_does_not_pass_its_witness(make_store, signer):
    now, older, other = make_store("now"), make_store("older"), make_store("other")
    append(now, signer, entries_of(0, 5))
    append(older, signer, entries_of(0, 3))
    append(other, signer, [*entries_of(0, 3), b"else", b"more", b"most"])
    witnessed = head_of(now)
    now.read_now(lambda tx: logs.require_holds(tx, FEDERATION, witnessed))
    append(now, signer, [b"further"])
    now.read_now(lambda tx: logs.require_holds(tx, FEDERATION, witnessed))
    for store in (older, other):
        with pytest.raises(LogDamaged, match="witness"):
            store.read_now(lambda tx: logs.require_holds(tx, FEDERATION, witnessed))


def test_the_tables_refuse_a_second_entry_at_a_place(db, signer):
    append(db, signer, [b"a"])
    with pytest.raises(Unavailable):
        db.write_now(lambda tx: tx.execute(insert(tables.ENTRIES).values(log=FEDERATION, number=0, entry=b"b")))
    assert db.read_now(lambda tx: tx.execute(select(tables.ENTRIES.c.entry)).scalars().all()) == [b"a"]
