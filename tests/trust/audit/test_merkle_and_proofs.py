import base64
import json

import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.errors import BadInput
from paroma.trust.audit.merkle import (
    EMPTY,
    EMPTY_ROOT,
    HASH,
    TILE,
    Edge,
    leaf_hash,
    leaf_hashes,
    node,
    root_of,
    tree_hash,
)
from paroma.trust.audit.proofs import (
    ProofInvalid,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)


def mth(leaves):
    """RFC 9162, 2.1.1, word for word: the second way of computing."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node(mth(leaves[:k]), mth(leaves[k:]))


def subtrees(leaves):
    return lambda level, index: mth(leaves[index << level : index + 1 << level])


def entries_of(n):
    return [str(i).encode() for i in range(n)]


@pytest.mark.data
@pytest.mark.promise(4)
def test_the_eight_leaf_tree_of_rfc_6962(published):
    tree = json.loads((published / "vectors/tlog/rfc6962_tree8.json").read_text())
    entries = [bytes.fromhex(leaf) for leaf in tree["leaves"]]
    leaves = leaf_hashes(entries)
    assert [leaf.hex() for leaf in leaves] == tree["leaf_hashes"]
    assert root_of([]).hex() == tree["empty_root"]
    for size, root in tree["roots"].items():
        assert root_of(entries[: int(size)]).hex() == root
        assert EMPTY.grow(leaves[: int(size)])[0].root().hex() == root
    assert len(tree["inclusion"]) == len(tree["consistency"]) == 36
    for case in tree["inclusion"]:
        number, size = case["index"], case["size"]
        path = [bytes.fromhex(h) for h in case["proof"]]
        assert list(prove_inclusion(number, size, subtrees(leaves)).hashes) == path
        verify_inclusion(leaves[number], number, size, path, bytes.fromhex(tree["roots"][str(size)]))
    for case in tree["consistency"]:
        old, new = case["size1"], case["size2"]
        path = [bytes.fromhex(h) for h in case["proof"]]
        assert list(prove_consistency(old, new, subtrees(leaves)).hashes) == path
        verify_consistency(old, new, path, *(bytes.fromhex(tree["roots"][str(size)]) for size in (old, new)))


@pytest.mark.data
@pytest.mark.promise(4)
def test_all_196_published_attacks_are_told_from_honest_proofs(published):
    files = sorted((published / "vectors/tlog/merkle").rglob("*.json"))
    assert len(files) == 196
    wrong = []
    for file in files:
        probe = json.loads(file.read_text())
        proof = [base64.b64decode(h) for h in probe["proof"] or ()]
        try:
            if "leafIdx" in probe:
                leaf, root = (base64.b64decode(probe[name] or "") for name in ("leafHash", "root"))
                verify_inclusion(leaf, probe["leafIdx"], probe["treeSize"], proof, root)
            else:
                roots = [base64.b64decode(probe[name] or "") for name in ("root1", "root2")]
                verify_consistency(probe["size1"], probe["size2"], proof, *roots)
            refused = False
        except ProofInvalid:
            refused = True
        if refused != probe["wantErr"]:
            wrong.append(file.name)
    assert not wrong


@pytest.mark.promise(4)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_a_log_grown_in_any_steps_has_the_root_of_its_entries(steps):
    edge, leaves, tiles = EMPTY, [], {}
    for step in steps:
        fresh = [leaf_hash(str(len(leaves) + i).encode()) for i in range(step)]
        edge, changed = edge.grow(fresh)
        leaves += fresh
        tiles |= {(tile.level, tile.index): tile.hashes for tile in changed}
    assert edge.root() == mth(leaves)
    assert Edge.decode(edge.size, edge.encode()) == edge
    for (level, index), hashes in tiles.items():
        span = TILE**level
        first = index * TILE
        expected = [mth(leaves[i * span : (i + 1) * span]) for i in range(first, first + len(hashes) // HASH)]
        assert hashes == b"".join(expected)
    assert sum(len(hashes) // HASH for (level, _), hashes in tiles.items() if level == 0) == len(leaves)


@pytest.mark.promise(4)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_proof_from_tiles_holds_and_no_changed_one_does(data):
    size = data.draw(st.one_of(st.integers(1, 40), st.integers(1, 1500)))
    leaves = leaf_hashes(entries_of(size))
    _, changed = EMPTY.grow(leaves)
    tiles = {(tile.level, tile.index): tile.hashes for tile in changed}
    nodes = nodes_of(lambda level, index: tiles[level, index])
    root = mth(leaves)

    number = data.draw(st.integers(0, size - 1))
    inclusion = prove_inclusion(number, size, nodes)
    verify_inclusion(leaves[number], number, size, inclusion.hashes, root)
    old = data.draw(st.integers(1, size))
    consistency = prove_consistency(old, size, nodes)
    verify_consistency(old, size, consistency.hashes, mth(leaves[:old]), root)

    flip = data.draw(st.integers(0, 255))
    for hashes, check in (
        (inclusion.hashes, lambda path: verify_inclusion(leaves[number], number, size, path, root)),
        (consistency.hashes, lambda path: verify_consistency(old, size, path, mth(leaves[:old]), root)),
    ):
        for at in range(len(hashes)):
            changed_hash = bytearray(hashes[at])
            changed_hash[flip // 8] ^= 1 << flip % 8
            with pytest.raises(ProofInvalid):
                check([*hashes[:at], bytes(changed_hash), *hashes[at + 1 :]])
        with pytest.raises(ProofInvalid):
            check([*hashes, leaves[0]])
        if hashes:
            with pytest.raises(ProofInvalid):
                check(hashes[:-1])
    other = bytearray(leaves[number])
    other[flip // 8] ^= 1 << flip % 8
    with pytest.raises(ProofInvalid):
        verify_inclusion(bytes(other), number, size, inclusion.hashes, root)


@pytest.mark.promise(4)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.data())
def test_a_proof_that_holds_for_another_place_is_not_taken_for_this_one(size, data):
    leaves = leaf_hashes(entries_of(size))
    number, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    path = prove_inclusion(number, size, subtrees(leaves)).hashes
    if other != number:
        with pytest.raises(ProofInvalid):
            verify_inclusion(leaves[number], other, size, path, mth(leaves))


@pytest.mark.parametrize("sizes", [(-1, 3), (4, 3)])
def test_no_proof_is_made_for_sizes_that_cannot_be(sizes):
    with pytest.raises(ProofInvalid):
        prove_consistency(*sizes, subtrees([]))


@pytest.mark.parametrize("number", [-1, 3])
def test_no_proof_is_made_for_an_entry_that_is_not_there(number):
    with pytest.raises(ProofInvalid):
        prove_inclusion(number, 3, subtrees([]))


def test_no_proof_is_made_from_tiles_that_are_too_short():
    with pytest.raises(ProofInvalid, match="no complete subtree"):
        prove_inclusion(0, 3, nodes_of(lambda *_: bytes(HASH)))


@pytest.mark.parametrize(("size", "data"), [(3, b""), (3, bytes(4 * HASH)), (-1, b""), (256, b"")])
def test_an_edge_that_does_not_fit_its_size_is_refused(size, data):
    with pytest.raises(BadInput):
        Edge.decode(size, data)


def test_a_tile_hashes_to_the_node_above_it():
    leaves = leaf_hashes(entries_of(TILE))
    assert tree_hash(b"".join(leaves)) == mth(leaves)


def textbook_inclusion(leaf, fn, size, proof, root):
    """RFC 9162, 2.1.3.2, to the letter: what it leaves to the reader is missing."""
    if fn >= size:
        raise ProofInvalid("outside")
    sn, r = size - 1, leaf
    for p in proof:
        if sn == 0:
            raise ProofInvalid("too long")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn or r != root:
        raise ProofInvalid("another root")


@pytest.mark.data
@pytest.mark.promise(4)
def test_the_published_attacks_catch_a_textbook_verifier(published):
    """The corpus counts because a planted defect is caught by it."""
    passed = []
    for file in sorted((published / "vectors/tlog/merkle/inclusion").rglob("*.json")):
        probe = json.loads(file.read_text())
        proof = [base64.b64decode(h) for h in probe["proof"] or ()]
        leaf, root = (base64.b64decode(probe[name] or "") for name in ("leafHash", "root"))
        try:
            textbook_inclusion(leaf, probe["leafIdx"], probe["treeSize"], proof, root)
            passed += [file.name] * probe["wantErr"]
        except ProofInvalid:
            pass
    assert passed
