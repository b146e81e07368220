"""Merkle tree hashes (RFC 9162, section 2.1.1), computed level by level, and the right edge of a growing tree.

Hashes travel as one run of bytes, 32 each: that is a tile, and a vector.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paroma.kernel.errors import BadInput

HASH = 32
TILE = 256
"""Hashes in a full tile (C2SP tlog-tiles)."""
TILE_BITS = 8
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Head of a log without entries."""

_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class Tile:
    """The hashes of 1 to 256 neighbouring nodes at tree level `8 * level`, from number `256 * index` on."""

    level: int
    index: int
    hashes: bytes  # 32 bytes each

    @property
    def width(self) -> int:
        """How many hashes."""
        return len(self.hashes) // HASH


@dataclass(frozen=True, slots=True)
class Edge:
    """All that a log must remember to grow: its size, and at each tile level the hashes of the unfinished tile.

    tiles[L] holds (size >> 8 L) mod 256 hashes: at most 255, at most 8,160 bytes a level.
    """

    size: int
    tiles: tuple[bytes, ...]

    def grow(self, leaves: Sequence[bytes]) -> tuple["Edge", list[Tile]]:
        """The edge after `leaves` (leaf hashes), and every tile that changed, from its first hash on."""
        changed: list[Tile] = []
        tiles: list[bytes] = []
        fresh = b"".join(leaves)
        size = self.size
        for level in range(max(len(self.tiles), levels(size + len(leaves)))):
            old = self.tiles[level] if level < len(self.tiles) else b""
            run = old + fresh
            first = size >> TILE_BITS * (level + 1)
            whole = len(run) // (TILE * HASH)
            above = []
            for number in range(whole):
                full = run[number * TILE * HASH : (number + 1) * TILE * HASH]
                changed.append(Tile(level, first + number, full))
                above.append(tree_hash(full))
            rest = run[whole * TILE * HASH :]
            if fresh and rest:
                changed.append(Tile(level, first + whole, rest))
            tiles.append(rest)
            fresh = b"".join(above)
        return Edge(size + len(leaves), tuple(tiles)), changed

    def root(self) -> bytes:
        """Head of the tree (RFC 9162, 2.1.1): what is unfinished at a level is the last child of the level above."""
        root = b""
        for hashes in self.tiles:
            nodes = hashes + root
            root = tree_hash(nodes) if nodes else b""
        return root or EMPTY_ROOT

    def encode(self) -> bytes:
        """The tiles' hashes, lowest level first; the widths follow from the size."""
        return b"".join(self.tiles)

    @classmethod
    def decode(cls, size: int, data: bytes) -> "Edge":
        """What `encode` wrote for a log of `size` entries. Raises BadInput where the lengths do not fit."""
        tiles, at = [], 0
        for level in range(levels(size)):
            width = edge_width(size, level) * HASH
            tiles.append(data[at : at + width])
            at += width
        if size < 0 or at != len(data):
            raise BadInput("the edge does not fit the log's size", do="read the log again from its first entry")
        return cls(size, tuple(tiles))


EMPTY = Edge(0, ())
"""The edge of a log without entries."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry: SHA-256 of 0x00 and the entry."""
    return _sha256(b"\0" + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Hash of each entry."""
    return [_sha256(b"\0" + entry).digest() for entry in entries]


def node(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 of 0x01 and its two children."""
    return _sha256(b"\1" + left + right).digest()


def tree_hash(hashes: bytes) -> bytes:
    """Head over one or more nodes of equal height, given as 32 bytes each; only the last may be of a lower tree.

    A level at a time: neighbours are hashed in pairs, an odd last one moves up. That is MTH of RFC 9162, because its
    split point is the largest power of two below the number of leaves.
    """
    row = hashes
    while len(row) > HASH:
        pairs = len(row) - len(row) % (2 * HASH)
        above = b"".join([_sha256(b"\1" + row[at : at + 2 * HASH]).digest() for at in range(0, pairs, 2 * HASH)])
        row = above + row[pairs:]
    return row


def root_of(entries: Iterable[bytes]) -> bytes:
    """Head of the log that holds just these entries."""
    leaves = b"".join(leaf_hashes(entries))
    return tree_hash(leaves) if leaves else EMPTY_ROOT


def levels(size: int) -> int:
    """How many tile levels a log of `size` entries has: 0 for none, 1 up to 255, 2 from 256 on."""
    return (max(size, 0).bit_length() + TILE_BITS - 1) // TILE_BITS


def edge_width(size: int, level: int) -> int:
    """Hashes in the unfinished tile of this level: 0 to 255."""
    return size >> TILE_BITS * level & TILE - 1
