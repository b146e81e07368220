"""Inclusion and consistency proofs (RFC 9162, sections 2.1.3 and 2.1.4), made from tiles and checked from nothing.

A proof is made by asking for complete subtrees (`Nodes`); where they lie is another's affair. What must not be ignored
raises.
"""

from collections.abc import Callable, Sequence

from msgspec import Struct

from paroma.kernel.errors import Refused
from paroma.trust.audit.merkle import HASH, TILE, TILE_BITS, node, tree_hash

Nodes = Callable[[int, int], bytes]
"""(level, index) -> hash of the complete subtree over leaves index * 2^level up to (index + 1) * 2^level - 1."""

TileHashes = Callable[[int, int], bytes]
"""(tile level, tile index) -> the hashes of that tile, as many as there are."""


class ProofInvalid(Refused):
    """The proof does not show what it should."""

    def __init__(self, message: str) -> None:
        super().__init__(message, do="ask for the proof again; if it fails again, the log is not what it was")


class Consistency(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the log of `new` entries begins with the log of `old` entries."""

    old: int
    new: int
    hashes: tuple[bytes, ...]


class Inclusion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That an entry stands at place `number` (from 0) in the log of `size` entries."""

    number: int
    size: int
    hashes: tuple[bytes, ...]


def nodes_of(tile: TileHashes) -> Nodes:
    """Subtrees out of tiles; each tile is asked for once."""
    kept: dict[tuple[int, int], bytes] = {}

    def subtree(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_BITS)
        first = index << height
        where = (tile_level, first // TILE)
        if where not in kept:
            kept[where] = tile(*where)
        at = first % TILE * HASH
        hashes = kept[where][at : at + (HASH << height)]
        if len(hashes) != HASH << height:
            raise ProofInvalid(f"the log has no complete subtree {index} at level {level}")
        return tree_hash(hashes)

    return subtree


def prove_inclusion(number: int, size: int, nodes: Nodes) -> Inclusion:
    """PATH(number, D[size]) of RFC 9162, 2.1.3.1. Raises ProofInvalid where there is no such entry."""
    if not 0 <= number < size:
        raise ProofInvalid(f"entry {number} lies outside a log of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        k = _split(end - start)
        if number < start + k:
            path.append(_span(start + k, end, nodes))
            end = start + k
        else:
            path.append(_span(start, start + k, nodes))
            start += k
    return Inclusion(number=number, size=size, hashes=tuple(reversed(path)))


def prove_consistency(old: int, new: int, nodes: Nodes) -> Consistency:
    """PROOF(old, D[new]) of RFC 9162, 2.1.4.1; empty for an `old` of 0, of which every log is a continuation."""
    if not 0 <= old <= new:
        raise ProofInvalid(f"a log of {new} entries does not continue one of {old}")
    path: list[bytes] = []
    start, end, m, whole = 0, new, old, True
    while 0 < m < end - start:
        k = _split(end - start)
        if m <= k:
            path.append(_span(start + k, end, nodes))
            end = start + k
        else:
            path.append(_span(start, start + k, nodes))
            start, m, whole = start + k, m - k, False
    if old and not whole:
        path.append(_span(start, end, nodes))
    return Consistency(old=old, new=new, hashes=tuple(reversed(path)))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` (a leaf hash) is entry `index` of the log of `size` entries with head `root`.

    RFC 9162, section 2.1.3.2, with its names. Raises ProofInvalid; says nothing when all is well.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"entry {index} lies outside a log of {size}")
    if any(len(h) != HASH for h in (leaf, root, *proof)):  # the RFC leaves this to the reader
        raise ProofInvalid("a hash is not 32 bytes long")
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            raise ProofInvalid("the path is longer than the tree is high")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while fn and not fn & 1:  # the last node of a level has no sibling: climb past those levels
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn or r != root:
        raise ProofInvalid("the path leads to another root")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the log of `new` entries (head `new_root`) begins with the log of `old` entries (head `old_root`).

    RFC 9162, section 2.1.4.2, with its names. An `old` of 0 is refused: it would prove nothing. Raises ProofInvalid.
    """
    if not 0 < old <= new:
        raise ProofInvalid(f"sizes {old} and {new} leave nothing to prove")
    if old == new:  # nothing is hashed here, so equal is all that the two heads need to be
        if proof or old_root != new_root:
            raise ProofInvalid(
                "two heads of the same size differ" if old_root != new_root else "the path should be empty"
            )
        return
    if any(len(h) != HASH for h in (old_root, new_root, *proof)):
        raise ProofInvalid("a hash is not 32 bytes long")
    path = (
        [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    )  # a power of two: its root is a node of the new tree
    if not proof:
        raise ProofInvalid("the path is empty")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            raise ProofInvalid("the path is longer than the tree is high")
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn or fr != old_root or sr != new_root:
        raise ProofInvalid("the path leads to another root")


def _split(n: int) -> int:
    """The largest power of two below n (RFC 9162, 2.1.1)."""
    return 1 << (n - 1).bit_length() - 1


def _span(start: int, end: int, nodes: Nodes) -> bytes:
    """Head over the leaves `start` to `end - 1`; `start` is a multiple of the least power of two >= length."""
    n = end - start
    if n & (n - 1) == 0:
        return nodes(n.bit_length() - 1, start // n)
    k = _split(n)
    return node(_span(start, start + k, nodes), _span(start + k, end, nodes))
