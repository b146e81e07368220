import json
from itertools import combinations

import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.audit import checkpoint as checkpoints
from paroma.trust.audit.checkpoint import CheckpointInvalid, LogInconsistent, peek
from paroma.trust.audit.cosignatures import Cosigner, QuorumMissing, age, check_cosignature, cosigned, quorum
from paroma.trust.audit.follow import ProvedTree, follow
from paroma.trust.audit.merkle import EMPTY, EMPTY_ROOT, leaf_hashes, root_of
from paroma.trust.audit.notes import CheckpointSigner, KeyTextInvalid, Note, NoteInvalid, NoteKey, NoteUnsigned
from paroma.trust.audit.tiles import BundleInvalid, EntryTooLong, Where, bundle, needed, unbundle
from paroma.trust.audit.verify import folder_reader
from paroma.trust.keys.log_keys import HeldLogKey


@pytest.mark.data
@pytest.mark.promise(4)
def test_published_notes_are_accepted_and_refused_as_they_should_be(published):
    cases = json.loads((published / "vectors/tlog/signed_notes.json").read_text())["cases"]
    assert {case["verdict"] for case in cases} == {"accept", "refuse", "parse only"}
    for case in cases:
        if case["verdict"] == "refuse":
            with pytest.raises((NoteInvalid, NoteUnsigned)):
                Note.parse(case["note"]).require(NoteKey.parse(case["vkey"]))
            continue
        note = Note.parse(case["note"])
        assert note.whole == case["note"]
        if case["verdict"] == "accept":
            note.require(NoteKey.parse(case["vkey"]))
        if "cosigned_message" in case:
            assert case["cosigned_message"] == f"cosignature/v1\ntime 1679315147\n{note.text}"
            assert int.from_bytes(note.signatures[1].body[:8], "big") == 1679315147


@pytest.mark.data
@pytest.mark.promise(4)
def test_a_small_published_log_is_followed_at_each_of_its_sizes(published):
    folder = published / "vectors/tlog/tessera_log"
    key = NoteKey.parse((folder / "log.vkey").read_text().strip())
    edge, entries = EMPTY, []
    for size in range(16):
        head = checkpoints.read((folder / f"checkpoint.{size}").read_text(), key)
        assert head.size == size
        read = follow(folder_reader(folder), head, edge)
        entries += [entry for _, entry in read.entries]
        edge = read.edge
        assert root_of(entries) == head.root == edge.root()
    assert (entries[0], entries[-1]) == (b"one", b"fivten")


@pytest.mark.data
@pytest.mark.promise(4)
def test_a_published_split_view_and_a_published_foreign_log_are_seen(published):
    folder = published / "vectors/tlog/sunlight_mirror"

    def witness(file):
        return NoteKey.parse(json.loads((folder / file).read_text())["verifier_keys"][0])

    mirror, witness1, witness2 = (witness(f"{name}.v0.json") for name in ("mirror", "witness", "witness2"))
    notes = {name: (folder / f"checkpoint.{name}").read_text() for name in ("mirror", "witness", "witness2")}
    assert cosigned(notes["mirror"], {"mirror": mirror}, 1) == ("mirror",)
    assert cosigned(notes["witness"], {"witness": witness1, "mirror": mirror}, 1) == ("witness",)
    assert cosigned(notes["witness2"], {"witness2": witness2}, 1) == ("witness2",)
    with pytest.raises(QuorumMissing):
        cosigned(notes["witness"], {"mirror": mirror, "witness2": witness2}, 1)

    heads = {name: checkpoints.Checkpoint(*peek(note), note) for name, note in notes.items()}
    ProvedTree(folder_reader(folder), heads["mirror"]).tile(0, 0)
    with pytest.raises(LogInconsistent):  # the same name and size, another root
        ProvedTree(_without_entries(folder_reader(folder)), heads["witness"])
    assert heads["witness2"].origin != heads["mirror"].origin


def _without_entries(read):
    # the mirror's bundles were left out of the vectors: empty entries of the right number stand for them
    return lambda path: bundle([b""] * (44 if ".p/44" in path else 256)) if "entries" in path else read(path)


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "note",
    ["", "\n\n", "text\n", "text\n\n", "text\n\n\u2014 a b", "a\rb\n\n\u2014 a AAAAAAA=\n", "t\n\n- a AAAAAAA=\n", "t\n\n\u2014 a AAAA\n", "t\n\n\u2014 a AAAAAAAAA\n",
     "t\n\n\u2014 a+b AAAAAAA=\n", "t\n\n\u2014 a AAAAAAA=\nx\n", "\ud800\n\n\u2014 a AAAAAAA=\n", "t" * 140_000, "t\n\n" + "\u2014 a AAAAAAA=\n" * 513],
)  # fmt: skip
def test_what_is_no_note_is_refused(note):
    with pytest.raises(NoteInvalid):
        Note.parse(note)


@pytest.mark.promise(4)
@pytest.mark.parametrize("text", ["a\n1\n", "a\n01\nx\n", "\n1\nx\n", "a\n-1\nx\n", "a\n1\nAAAA\n", "a\n1\n!\n", f"a\n{'9' * 20}\nx\n",
                                  "a\n0\n" + "A" * 43 + "=\n", "a\n1\n" + "A" * 42 + "B=\n", "a\n1\n" + "A" * 43 + "=\n\n\n"])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text, signer):
    with pytest.raises(BadInput):
        peek(Note(text, (signer.sign(text),)).whole)


@pytest.mark.promise(4)
def test_a_checkpoint_of_another_log_or_by_another_key_is_refused(signer):
    head = checkpoints.sign(0, EMPTY_ROOT, signer)
    assert checkpoints.read(head.note, signer.public) == head
    other = CheckpointSigner(signer.origin, HeldLogKey.fresh(SeededRandomness(99)))
    with pytest.raises(NoteUnsigned):
        checkpoints.read(head.note, other.public)
    text = checkpoints.body("hub.example/other", 0, EMPTY_ROOT)
    with pytest.raises(CheckpointInvalid, match="another log"):
        checkpoints.read(Note(text, (signer.sign(text),)).whole, signer.public)


@pytest.mark.promise(4)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_of_a_signed_checkpoint_passes(at, bit):
    signer = CheckpointSigner("log.example", HeldLogKey.fresh(SeededRandomness(3)))
    data = bytearray(checkpoints.sign(7, root_of([b"x"] * 7), signer).note.encode())
    data[at % len(data)] ^= 1 << bit
    with pytest.raises((BadInput, Refused, UnicodeDecodeError)):
        checkpoints.read(bytes(data).decode(), signer.public)


def test_keys_travel_as_text(signer, cosigners):
    for key in (signer.public, cosigners["a"].public):
        assert NoteKey.parse(key.vkey) == key
    for broken in (
        "",
        "a",
        "a+b+c",
        signer.vkey + "A",
        signer.vkey.replace("+", "-", 1),
        "x" + signer.vkey,
        signer.vkey[:-8],
    ):
        with pytest.raises(KeyTextInvalid):
            NoteKey.parse(broken)
    for name in ("", "two words", "a+b", "a\x1b[31m"):
        with pytest.raises(KeyTextInvalid):
            CheckpointSigner(name, HeldLogKey.fresh(SeededRandomness(3)))


# cosignatures


def cosign(note, *cosigners, at=1000.0):
    parts = Note.parse(note)
    return parts.with_lines([cosigner.cosign(parts.text, at) for cosigner in cosigners]).whole


@pytest.mark.promise(4)
def test_a_quorum_counts_participants_whose_own_key_signed_lately(signer, cosigners, witnesses):
    a, b, c, _ = cosigners.values()
    note = cosign(checkpoints.sign(0, EMPTY_ROOT, signer).note, a, b, c)
    assert cosigned(note, witnesses, 3) == ("a", "b", "c")
    assert cosigned(note, witnesses, 3, now=1060) == ("a", "b", "c")
    for now in (1061, 939):  # too old; and from a clock that runs ahead
        with pytest.raises(QuorumMissing):
            cosigned(note, witnesses, 3, now=now)
    with pytest.raises(QuorumMissing) as caught:
        cosigned(note, witnesses, 4)
    assert caught.value.names == ("a", "b", "c")
    stranger = Cosigner("a.example/w", HeldLogKey.fresh(SeededRandomness(77)))
    fourfold = cosign(checkpoints.sign(0, EMPTY_ROOT, signer).note, a, a, a, stranger)
    with pytest.raises(QuorumMissing):
        cosigned(fourfold, witnesses, 2)
    with pytest.raises(QuorumMissing):
        cosigned(note, {}, 0)
    assert age(cosign(note, a, at=1030), witnesses, 1, 1040) == 10
    assert age(cosign(note, a, at=1030), witnesses, 2, 1040) == 40
    with pytest.raises(QuorumMissing):
        age(note, witnesses, 4, 1040)


@pytest.mark.promise(4)
def test_two_participants_with_one_key_are_not_two(signer, cosigners):
    note = cosign(checkpoints.sign(0, EMPTY_ROOT, signer).note, cosigners["a"])
    same = cosigners["a"].public
    with pytest.raises(KeyTextInvalid, match="same key"):
        cosigned(note, {"a": same, "b": same}, 2)


@pytest.mark.promise(4)
def test_a_forged_line_in_a_participants_name_does_not_undo_its_true_one(signer, cosigners, witnesses):
    other = checkpoints.sign(1, root_of([b"x"]), signer).body
    forged = cosigners["a"].cosign(other, 1000)
    note = checkpoints.sign(0, EMPTY_ROOT, signer).note
    text = Note.parse(note).text
    both = Note.parse(note).with_lines([forged, cosigners["a"].cosign(text, 1000)]).whole
    assert cosigned(both, witnesses, 1) == ("a",)
    with pytest.raises(NoteUnsigned):
        check_cosignature(text, forged, witnesses["a"])


@pytest.mark.promise(4)
@pytest.mark.parametrize("n", range(1, 8))
def test_two_quorums_share_more_than_may_lie(n):
    for f in range(n):
        if 3 * f >= n:
            with pytest.raises(BadInput):
                quorum(n, f)
            continue
        k = quorum(n, f)
        assert k > (n + f) / 2 >= k - 1
        assert all(
            len(set(one) & set(two)) > f for one in combinations(range(n), k) for two in combinations(range(n), k)
        )


# tiles


@pytest.mark.parametrize(
    ("where", "path"),
    [
        (Where(0, 0, 256), "tile/0/000"),
        (Where(0, 1234067, 256), "tile/0/x001/x234/067"),
        (Where(3, 17, 5), "tile/3/017.p/5"),
        (Where(None, 1000, 255), "tile/entries/x001/000.p/255"),
    ],
)
def test_paths_are_those_of_the_specification(where, path):
    assert where.path == path
    assert Where.parse(path) == where


@pytest.mark.promise(3)
@pytest.mark.parametrize("path", ["", "tile/0/0", "tile/00/000", "tile/0/x000/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/../../etc",
                                  "tile/-1/000", "tile/64/000", "tile/0/000.p/05", "/tile/0/000", "tile/0/000\n", "tile/entries/0000", "tile/0/٠٠٠"])  # fmt: skip
def test_other_spellings_of_paths_are_refused(path):
    with pytest.raises(BadInput):
        Where.parse(path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20), st.data())
def test_a_bundle_holds_its_entries_and_nothing_else(entries, data):
    packed = bundle(entries)
    assert unbundle(packed, len(entries)) == entries
    with pytest.raises(BundleInvalid):
        unbundle(packed + b"\0", len(entries))
    with pytest.raises(BundleInvalid):
        unbundle(packed, len(entries) + 1)
    if packed:
        with pytest.raises(BundleInvalid):
            unbundle(packed[: data.draw(st.integers(0, len(packed) - 1))], len(entries))


def test_an_entry_may_have_65_535_bytes_and_not_one_more():
    assert unbundle(bundle([b"x" * 65_535]), 1) == [b"x" * 65_535]
    with pytest.raises(EntryTooLong):
        bundle([b"x" * 65_536])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_following_reads_what_is_new_and_the_way_up(a, b):
    old, new = sorted((a, b))
    paths = [where.path for where in needed(old, new)]
    assert len(set(paths)) == len(paths) <= 2 * ((new - old) // 256 + 2) + 2 * 2
    assert EMPTY.grow(leaf_hashes([]))[0] == EMPTY
