import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from sqlalchemy import update

from paroma.kernel.ids import fresh
from paroma.kernel.randomness import OsRandomness
from paroma.trust.audit import checkpoint as checkpoints, log as logs, tables
from paroma.trust.audit.checkpoint import CheckpointInvalid, LogInconsistent
from paroma.trust.audit.cosignatures import QuorumMissing
from paroma.trust.audit.entries import seal
from paroma.trust.audit.follow import follow
from paroma.trust.audit.followed import followed, remember
from paroma.trust.audit.log import FEDERATION
from paroma.trust.audit.merkle import EMPTY, EMPTY_ROOT, TILE, leaf_hash, leaf_hashes
from paroma.trust.audit.notes import Note, NoteUnsigned
from paroma.trust.audit.tiles import CHECKPOINT, TileMissing, Where, bundle, needed
from paroma.trust.audit.verify import Expectations, adds_up, needs, verify, verify_folder

SIZE = 600


def append(store, signer, entries, log=FEDERATION):
    store.write_now(lambda tx: logs.append(tx, log, entries, signer))


def entries_of(first, end):
    return [f"entry {number}".encode() for number in range(first, end)]


@pytest.fixture
def whole(db, signer, copy):
    append(db, signer, entries_of(0, SIZE))
    return copy(db)


@pytest.mark.promise(4)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([1, 0])
@example([255, 1, 256, 0])
@given(st.lists(st.integers(0, 400), min_size=1, max_size=4))
def test_a_log_is_followed_in_any_steps_reading_only_what_is_needed(db, signer, copy, steps):
    log = logs.LogName(fresh("log", OsRandomness()))
    db.write_now(lambda tx: logs.begin(tx, log, signer))
    edge, read = EMPTY, []
    for step in steps:
        old = len(read)
        append(db, signer, entries_of(old, old + step), log)
        head = copy(db, log).head
        expected = {where.path for where in needed(old, head.size)}
        asked = set()

        def reader(path, asked=asked):
            asked.add(path)
            return db.read_now(lambda tx: logs.serve(tx, log, path))

        result = follow(reader, head, edge)
        new = list(result.entries)
        assert new == list(enumerate(entries_of(old, head.size), old))
        assert asked <= expected
        read += new
        edge = result.edge
        db.write_now(lambda tx, edge=edge: remember(tx, f"{log}", edge))
        assert db.read_now(lambda tx: followed(tx, f"{log}")) == edge
        assert edge.root() == head.root


def test_nothing_was_followed_of_an_unknown_log(db):
    assert db.read_now(lambda tx: followed(tx, "none")) == EMPTY


def read_all(read, head, since=EMPTY):
    return [entry for _, entry in follow(read, head, since).entries]


@pytest.mark.promise(4)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_changed_bit_anywhere_is_seen_and_its_entry_named(whole, data):
    path = data.draw(st.sampled_from(sorted(path for path in whole.files if path != CHECKPOINT)))
    old = whole.files[path]
    changed = bytearray(old)
    at, bit = data.draw(st.integers(0, len(old) - 1)), data.draw(st.integers(0, 7))
    changed[at] ^= 1 << bit
    whole.files[path] = bytes(changed)
    try:
        with pytest.raises(LogInconsistent) as caught:
            read_all(whole, whole.head)
    finally:
        whole.files[path] = old
    place = caught.value.entries
    where = Where.parse(path)
    if where.level == 0:
        number = where.index * TILE + at // 32
        assert place == range(number, number + 1)
    elif where.level == 1:
        assert place == range((at // 32) * TILE, (at // 32 + 1) * TILE)
    else:
        number = where.index * TILE + entry_at(old, at)
        assert place == range(number, number + 1)
    assert str(place.start) in str(caught.value)


def entry_at(bundled, position):
    number = at = 0
    while at + 2 + int.from_bytes(bundled[at : at + 2], "big") <= position:
        at += 2 + int.from_bytes(bundled[at : at + 2], "big")
        number += 1
    return number


@pytest.mark.promise(4)
@pytest.mark.parametrize("number", [0, 255, 256, 511, 512, 599])
def test_one_edited_byte_in_the_keepers_database_is_seen_and_named(db, signer, copy, number):
    """Scene 8 of the demo: somebody edits one byte of the log."""
    append(db, signer, entries_of(0, SIZE))
    db.write_now(
        lambda tx: tx.execute(
            update(tables.ENTRIES).where(tables.ENTRIES.c.number == number).values(entry=f"Entry {number}".encode())
        )
    )
    damaged = copy(db)
    with pytest.raises(LogInconsistent, match=rf"its bytes were changed \(entry {number}\)") as caught:
        read_all(damaged, damaged.head)
    assert caught.value.entries == range(number, number + 1)


@pytest.mark.promise(4)
@pytest.mark.parametrize("path", ["tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"])
def test_a_change_is_seen_with_no_more_than_the_needed_files_at_hand(whole, path):
    files = {where.path: whole.files[where.path] for where in needed(400, SIZE)}
    files[path] = files[path][:-1] + bytes([files[path][-1] ^ 1])

    def read(asked):
        if asked not in files:
            raise TileMissing("not fetched", do="fetch it")
        return files[asked]

    with pytest.raises(LogInconsistent):
        list(follow(read, whole.head, EMPTY.grow(leaf_hashes(entries_of(0, 400)))[0]).entries)


@pytest.mark.promise(4)
@pytest.mark.parametrize("number", [3, 300, 590])
def test_an_entry_rewritten_with_its_hash_is_seen_too(whole, number):
    index, offset = divmod(number, TILE)
    width = min(TILE, SIZE - index * TILE)
    entries = entries_of(index * TILE, index * TILE + width)
    entries[offset] = b"forged"
    whole.files[Where(None, index, width).path] = bundle(entries)
    whole.files[Where(0, index, width).path] = b"".join(leaf_hashes(entries))
    with pytest.raises(LogInconsistent) as caught:
        read_all(whole, whole.head)
    assert number in caught.value.entries


@pytest.mark.promise(4)
def test_nothing_is_handed_on_before_it_is_proved(whole):
    whole.files[Where(None, 1, 256).path] = bundle([b"forged", *entries_of(257, 512)])
    taken = []
    with pytest.raises(LogInconsistent, match="entry 256"):
        taken.extend(entry for _, entry in follow(whole, whole.head).entries)
    assert taken == entries_of(0, 256)


@pytest.mark.promise(4)
@pytest.mark.parametrize("old", [1, 255, 256, 300, 511, 512, 599])
def test_a_rewritten_past_is_seen_by_who_followed_it(make_store, signer, copy, old):
    """Even under a head that is signed and consistent in itself, without any proof from the keeper."""
    honest, forged = make_store("honest"), make_store("forged")
    append(honest, signer, entries_of(0, old))
    since = follow(copy(honest), copy(honest).head).edge
    past = entries_of(0, old)
    past[-1] = b"forged"
    append(forged, signer, past + entries_of(old, SIZE))
    with pytest.raises(LogInconsistent) as caught:
        read_all(copy(forged), copy(forged).head, since)
    assert old - 1 in caught.value.entries
    append(honest, signer, entries_of(old, SIZE))
    assert read_all(copy(honest), copy(honest).head, since) == entries_of(old, SIZE)


@pytest.mark.promise(4)
def test_a_shorter_log_and_missing_or_torn_files_are_refused(whole, db, signer):
    since = follow(whole, whole.head).edge
    older = checkpoints.sign(5, db.read_now(lambda tx: logs.root_at(tx, FEDERATION, 5)), signer)
    with pytest.raises(LogInconsistent, match="went back"):
        follow(whole, older, since)
    path = Where(0, 0, 256).path
    for torn in (b"", whole.files[path][:-1], whole.files[path] + bytes(32)):
        with pytest.raises(LogInconsistent):
            read_all(lambda asked, torn=torn: torn if asked == path else whole(asked), whole.head)
    del whole.files[path]
    with pytest.raises(TileMissing):
        read_all(whole, whole.head)


@pytest.mark.promise(4)
def test_bytes_behind_the_last_entry_of_a_bundle_are_seen(whole):
    whole.files[Where(None, 0, 256).path] += b"\0\0"
    with pytest.raises(LogInconsistent, match="go on where they should end") as caught:
        read_all(whole, whole.head)
    assert caught.value.entries == range(255, 256)


@pytest.mark.promise(4)
def test_a_bundle_and_its_tile_torn_together_are_seen(whole):
    whole.files[Where(None, 2, 88).path] = b"\xff"
    whole.files[Where(0, 2, 88).path] = bytes(88 * 32)
    with pytest.raises(LogInconsistent) as caught:
        read_all(whole, whole.head)
    assert caught.value.entries == range(512, 600)


# verify


def cosign(note, *cosigners, at=1000.0):
    parts = Note.parse(note)
    return parts.with_lines([cosigner.cosign(parts.text, at) for cosigner in cosigners]).whole


VOTES = [
    seal("permit", 1, {"permit": "p", "epsilon": 3}),
    seal("attempt-opened", 1, {"attempt": 1}),
    seal("debit", 2, {"permit": "p", "epsilon": 1.5}),
    seal("vote", 3, {"attempt": 1}),
    seal("debit", 4, {"permit": "p", "epsilon": 1.5}),
]
CHECKS = (
    needs("vote", "attempt-opened", link="attempt"),
    adds_up("debit", "epsilon", per="permit", limit="epsilon", limit_kind="permit"),
)


@pytest.fixture
def voted(db, signer, copy):
    append(db, signer, VOTES)
    return copy(db)


@pytest.mark.promise(4)
def test_a_sound_log_says_what_is_proved_and_what_is_not(voted, signer, cosigners, witnesses, tmp_path):
    a, b, c, _ = cosigners.values()
    voted.files[CHECKPOINT] = cosign(voted.head.note, a, b, c).encode()
    for path, content in voted.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    expectations = Expectations(checks=CHECKS, remembered=(voted.head,), now=1010)
    for report in (
        verify(voted, signer.origin, signer.vkey, witnesses, 3, expectations=expectations),
        verify_folder(tmp_path, signer.origin, signer.vkey, witnesses, 3, expectations=expectations),
    ):
        assert report.holds
        assert report.cosigned_by == ("a", "b", "c")
        assert report.size == len(VOTES)
        for words in (
            "All 5 entries",
            "cosigned by a, b and c",
            "Each of 1 `vote`",
            "It does not prove",
            "wrote down everything",
        ):
            assert words in report.sentence
    undated = verify(voted, signer.origin, signer.vkey, witnesses, 3)
    assert "the age of the cosignatures was not looked at" in undated.not_proved[-1]
    with pytest.raises(QuorumMissing):
        verify(voted, signer.origin, signer.vkey, witnesses, 4)
    with pytest.raises(QuorumMissing):
        verify(voted, signer.origin, signer.vkey, witnesses, 3, expectations=Expectations(now=2000))
    alone = verify(voted, signer.origin, signer.vkey, {}, 0)
    assert alone.holds
    assert "others were shown the same log" in alone.not_proved[0]
    (tmp_path / Where(None, 0, 5).path).unlink()
    with pytest.raises(TileMissing):
        verify_folder(tmp_path, signer.origin, signer.vkey, witnesses, 3)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (seal("vote", 5, {"attempt": 2}), "entry 5 is a `vote` without"),
        (seal("vote", 5, {}), "entry 5 is a `vote` without"),
        (seal("debit", 5, {"permit": "p", "epsilon": 0.1}), "entry 5 takes epsilon beyond"),
        (seal("debit", 5, {"permit": "p", "epsilon": -1}), "entry 5 takes epsilon beyond"),
        (seal("debit", 5, {"permit": "p"}), "entry 5 takes epsilon beyond"),
        (seal("debit", 5, {"permit": "q", "epsilon": 0.1}), "entry 5 takes epsilon beyond"),
    ],
)
def test_a_sound_log_that_tells_of_a_broken_rule_does_not_hold(db, signer, copy, entry, says):
    append(db, signer, [*VOTES, entry])
    report = verify(copy(db), signer.origin, signer.vkey, {}, 0, expectations=Expectations(checks=CHECKS))
    assert not report.holds
    assert says in report.sentence


@pytest.mark.promise(4)
def test_the_checkers_trust_comes_from_elsewhere(voted, signer, cosigners, make_store, copy):
    with pytest.raises(LogInconsistent, match="the key given"):
        verify(voted, "hub.example/other", signer.vkey, {}, 0)
    files = dict(voted.files)
    for content, error in ((b"\xff", CheckpointInvalid), (voted.head.body.encode() + b"\n", Exception)):
        voted.files[CHECKPOINT] = content
        with pytest.raises(error):
            verify(voted, signer.origin, signer.vkey, {}, 0)
    voted.files[CHECKPOINT] = (
        cosign(voted.head.note, cosigners["a"]).replace(voted.head.note.split("\n")[4], "").encode()
    )
    with pytest.raises((NoteUnsigned, checkpoints.BadInput)):
        verify(voted, signer.origin, signer.vkey, {}, 0)
    voted.files = files
    other = make_store("other")
    append(other, signer, [*VOTES[:-1], seal("other", 1, {})])
    empty = checkpoints.sign(0, EMPTY_ROOT, signer)
    assert verify(voted, signer.origin, signer.vkey, {}, 0, expectations=Expectations(remembered=(empty,))).holds
    longer = make_store("longer")
    append(longer, signer, [*VOTES, *VOTES])
    for remembered in (copy(other).head, copy(longer).head):
        with pytest.raises(LogInconsistent):
            verify(voted, signer.origin, signer.vkey, {}, 0, expectations=Expectations(remembered=(remembered,)))


@pytest.mark.promise(4)
def test_foreign_entries_are_refused_unless_they_are_expected(whole, signer):
    with pytest.raises(checkpoints.BadInput):
        verify(whole, signer.origin, signer.vkey, {}, 0)
    assert verify(whole, signer.origin, signer.vkey, {}, 0, expectations=Expectations(opens=False)).size == SIZE
    assert leaf_hash(b"") != b""


class Big:
    """A log with three levels of tiles, in memory."""

    def __init__(self, signer, size=66_000):
        entries = [b"%d" % number for number in range(size)]
        edge, changed = EMPTY.grow(leaf_hashes(entries))
        self.head = checkpoints.sign(size, edge.root(), signer)
        self.files = {Where(tile.level, tile.index, tile.width).path: tile.hashes for tile in changed}
        for index in range(-(-size // TILE)):
            part = entries[index * TILE : (index + 1) * TILE]
            self.files[Where(None, index, len(part)).path] = bundle(part)

    def __call__(self, path):
        return self.files[path]


@pytest.fixture(scope="module")
def big(signer):
    return Big(signer)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("path", "at", "place"),
    [
        ("tile/entries/003", 5, range(769, 770)),
        ("tile/0/003", 7 * 32, range(775, 776)),
        ("tile/1/000", 9 * 32 + 1, range(9 * 256, 10 * 256)),
        ("tile/1/001.p/1", 3, range(65_536, 65_792)),
        ("tile/2/000.p/1", 31, range(65_536)),
        ("tile/0/257.p/208", 32, range(65_793, 65_794)),
    ],
)
def test_a_change_in_any_level_of_a_big_log_is_named_as_closely_as_it_can_be(big, path, at, place):
    old = big.files[path]
    big.files[path] = old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :]
    try:
        with pytest.raises(LogInconsistent) as caught:
            read_all(big, big.head)
    finally:
        big.files[path] = old
    assert caught.value.entries == place


@pytest.mark.promise(4)
def test_following_ten_entries_of_a_big_log_reads_a_few_files(big):
    asked = []

    def read(path):
        asked.append(path)
        return big(path)

    since = EMPTY.grow(leaf_hashes([b"%d" % number for number in range(65_990)]))[0]
    assert read_all(read, big.head, since) == [b"%d" % number for number in range(65_990, 66_000)]
    assert len(asked) == 4
    assert len(read_all(big, big.head)) == 66_000
