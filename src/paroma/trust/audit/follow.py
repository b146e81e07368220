"""Reading another's log and holding each byte of it against the checkpoint that was accepted.

From the top down: the right edge must hash to the checkpoint's root; each tile must hash to its place in the tile
above; each entry must hash to its place in the lowest tile. So an entry is handed on only after it was proved, one tile
is in memory at a time, and a change is named by its place. Following n new entries reads O(n + log N) bytes: what was
read before is remembered (`followed`) as the edge that the new tiles must continue. Whoever only checks a log needs no
database, so none is imported here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from paroma.kernel.errors import Unavailable
from paroma.trust.audit.checkpoint import Checkpoint, LogInconsistent
from paroma.trust.audit.merkle import (
    EMPTY,
    HASH,
    TILE,
    TILE_BITS,
    Edge,
    edge_width,
    leaf_hash,
    leaf_hashes,
    levels,
    tree_hash,
)
from paroma.trust.audit.proofs import Nodes, nodes_of
from paroma.trust.audit.tiles import BundleInvalid, TileReader, Where, unbundle, width_at


@dataclass(frozen=True, slots=True)
class Followed:
    """A log whose right edge was proved; its entries are proved as they are taken."""

    edge: Edge  # to be remembered once all entries were taken
    entries: Iterator[tuple[int, bytes]]  # (place, entry); raises LogInconsistent


def follow(read: TileReader, checkpoint: Checkpoint, since: Edge = EMPTY) -> Followed:
    """The entries from `since.size` to `checkpoint.size - 1`, each proved by the checkpoint before it is handed on.

    since: what was remembered of this log; EMPTY to read it all again. checkpoint: accepted before, by `witness.grow`.
    Where reading must not block, fetch `tiles.needed(since.size, checkpoint.size)` first and read from those.
    Raises LogInconsistent, which names the entry where it can; what `read` raises; TileMissing.
    """
    if since.size > checkpoint.size:
        raise LogInconsistent(checkpoint.origin, f"it went back from {since.size} entries to {checkpoint.size}")
    tree = ProvedTree(read, checkpoint)
    tree.require_continues(since)
    return Followed(tree.edge, tree.entries(since.size))


class ProvedTree:
    """The tiles of a log, each proved by the checkpoint before it is used."""

    def __init__(self, read: TileReader, checkpoint: Checkpoint) -> None:
        """Reads the right edge, one tile a level. Raises LogInconsistent, TileMissing."""
        self._read = read
        self._origin = checkpoint.origin
        self.size = checkpoint.size
        self._kept: dict[int, tuple[int, bytes]] = {}  # tile level -> the tile last used there: walking needs no more
        widths = [edge_width(self.size, level) for level in range(levels(self.size))]
        self.edge = Edge(
            self.size,
            tuple(
                self._fetch(level, self.size >> TILE_BITS * (level + 1)) if width else b""
                for level, width in enumerate(widths)
            ),
        )
        if self.edge.root() != checkpoint.root:
            raise self._where_the_edge_is_wrong()

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile. Raises LogInconsistent, TileMissing."""
        if index == self.size >> TILE_BITS * (level + 1):
            return self.edge.tiles[level]
        kept = self._kept.get(level)
        if kept and kept[0] == index:
            return kept[1]
        above = self.tile(level + 1, index >> TILE_BITS)
        at = index % TILE * HASH
        hashes = self._fetch(level, index)
        if tree_hash(hashes) != above[at : at + HASH]:
            raise self._wrong(self._blame(level, index, hashes) or _leaves(level + 1, index, self.size), "a hash tile")
        self._kept[level] = (index, hashes)
        return hashes

    def nodes(self) -> Nodes:
        """Complete subtrees, for proofs."""
        return nodes_of(self.tile)

    def require_continues(self, since: Edge) -> None:
        """Check that the log begins with what was remembered. Raises LogInconsistent."""
        for level, old in enumerate(since.tiles):
            if not old:
                continue
            index = since.size >> TILE_BITS * (level + 1)
            for at in range(0, len(old), HASH):
                if self.tile(level, index)[at : at + HASH] != old[at : at + HASH]:
                    raise self._wrong(
                        _leaves(level, index * TILE + at // HASH, self.size),
                        "what was read before",
                        changed="is no longer there",
                    )

    def entries(self, first: int = 0) -> Iterator[tuple[int, bytes]]:
        """(place, entry) from `first` on, each proved. Raises LogInconsistent, TileMissing."""
        end = -(-self.size // TILE) if first < self.size else 0  # nothing new: no file is read
        for index in range(first // TILE, end):
            start = index * TILE
            hashes = self.tile(0, index)
            bundle = self._read(Where(None, index, len(hashes) // HASH).path)
            for offset, entry in enumerate(self._proved(bundle, hashes, start)):
                if start + offset >= first:
                    yield start + offset, entry

    def _proved(self, bundle: bytes, hashes: bytes, start: int) -> list[bytes]:
        """The entries of a bundle, held against the tile; all or none."""
        entries: list[bytes] = []
        at = 0
        for offset in range(0, len(hashes), HASH):
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            entry = bundle[at + 2 : end]
            # a wrong length cuts the entry elsewhere, so it hashes to something else and is named like a wrong byte
            if end > len(bundle) or leaf_hash(entry) != hashes[offset : offset + HASH]:
                number = start + offset // HASH
                raise self._wrong(range(number, number + 1), "its bytes", changed="were changed")
            entries.append(entry)
            at = end
        if at != len(bundle):
            last = start + len(entries) - 1
            raise self._wrong(range(last, last + 1), "its bytes", changed="go on where they should end")
        return entries

    def _fetch(self, level: int, index: int) -> bytes:
        width = width_at(self.size, level, index)
        hashes = self._read(Where(level, index, width).path)
        if len(hashes) != width * HASH:
            raise self._wrong(_leaves(level + 1, index, self.size), "the length of a hash tile")
        return hashes

    def _where_the_edge_is_wrong(self) -> LogInconsistent:
        for level, hashes in enumerate(self.edge.tiles):
            place = self._blame(level, self.size >> TILE_BITS * (level + 1), hashes)
            if place is not None:
                return self._wrong(place, "its bytes, or its hash")
        return self._wrong(range(self.size), "the head", changed="hash to another root than the checkpoint's")

    def _blame(self, level: int, index: int, hashes: bytes) -> range | None:
        """Where to look, as far as the files at hand tell; that something was changed is known already."""
        try:
            return self._changed_below(level, index, hashes)
        except Unavailable:
            return None

    def _changed_below(self, level: int, index: int, hashes: bytes) -> range | None:
        """Which leaves lie under the first hash of this tile that does not follow from what stands below it."""
        if level == 0:
            width = len(hashes) // HASH
            try:
                below = leaf_hashes(unbundle(self._read(Where(None, index, width).path), width))
            except BundleInvalid:
                return _leaves(1, index, self.size)
        else:
            children = range(index * TILE, index * TILE + len(hashes) // HASH)
            below = [tree_hash(self._read(Where(level - 1, child, TILE).path)) for child in children]
        for offset, found in enumerate(below):
            if found != hashes[offset * HASH : (offset + 1) * HASH]:
                place = _leaves(level, index * TILE + offset, self.size)
                return place if level == 0 else self._changed_in_child(level - 1, index * TILE + offset) or place
        return None

    def _changed_in_child(self, level: int, index: int) -> range | None:
        return self._changed_below(level, index, self._read(Where(level, index, TILE).path))

    def _wrong(self, place: range, what: str, *, changed: str = "was changed") -> LogInconsistent:
        one = len(place) == 1
        entries = f"entry {place.start}" if one else f"entries {place.start} to {place.stop - 1}"
        return LogInconsistent(self._origin, f"{what} {changed} ({entries})", entries=place)


def _leaves(tree_tile_level: int, index: int, size: int) -> range:
    """The leaves under node `index` of tree level 8 * tree_tile_level."""
    span = TILE_BITS * tree_tile_level
    return range(index << span, min(index + 1 << span, size))
