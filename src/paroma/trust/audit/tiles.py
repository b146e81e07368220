"""How a log is served: hash tiles and entry bundles under fixed paths (C2SP tlog-tiles).

`tile/<L>/<N>` holds 256 hashes, `tile/entries/<N>` 256 entries; the last ones, while unfinished, end in `.p/<W>`.
Whoever knows the size of a log knows every path of it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from paroma.kernel.errors import BadInput, Unavailable
from paroma.trust.audit.merkle import TILE, TILE_BITS, edge_width, levels

MOST_ENTRY = 65_535
"""Bytes in an entry: its length is a uint16."""
CHECKPOINT = "checkpoint"
"""The path of the signed head."""

TileReader = Callable[[str], bytes]
"""A path -> its bytes. Raises TileMissing, or another Unavailable."""

_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class TileMissing(Unavailable):
    """The log does not (or not yet) hold that tile."""


class BundleInvalid(BadInput):
    """The bytes are no run of entries with their lengths."""


class EntryTooLong(BadInput):
    """An entry is longer than the format can say."""


@dataclass(frozen=True, slots=True)
class Where:
    """One file of a log: a hash tile, or (level None) a bundle of entries."""

    level: int | None
    index: int
    width: int  # 1 to 256

    @property
    def path(self) -> str:
        """The path below the log's address, such as `tile/0/x001/234.p/17`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        return f"tile/{level}/{'/'.join(groups)}" + (f".p/{self.width}" if self.width < TILE else "")

    @classmethod
    def parse(cls, path: str) -> "Where":
        """Read a path. Raises BadInput for any other spelling than the one that `path` writes."""
        match = _PATH.fullmatch(path)
        if match:
            level, groups, width = match.groups()
            index = int(groups.replace("x", "").replace("/", ""))
            found = cls(None if level == "entries" else int(level), index, int(width) if width else TILE)
            if (found.level or 0) <= 63 and found.path == path:
                return found
        raise BadInput("the path names no tile", do="ask for `tile/<level>/<number>` as C2SP tlog-tiles spells it")


def width_at(size: int, level: int, index: int) -> int:
    """Hashes in tile (level, index) of a log of `size` entries: 0 to 256."""
    full, rest = size >> TILE_BITS * (level + 1), edge_width(size, level)
    return TILE if index < full else rest if index == full else 0


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries with their lengths (uint16, big-endian). Raises EntryTooLong."""
    for entry in entries:
        if len(entry) > MOST_ENTRY:
            raise EntryTooLong(
                f"an entry has {len(entry)} bytes, {MOST_ENTRY} are the most", do="log a hash of it instead"
            )
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def unbundle(data: bytes, count: int) -> list[bytes]:
    """Exactly `count` entries. Raises BundleInvalid."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < count:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            break
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != count:
        raise BundleInvalid(f"the bundle does not hold {count} whole entries", do="fetch it again")
    return entries


def needed(old: int, new: int) -> Iterator[Where]:
    """Every file that following a log from `old` to `new` entries reads, each once.

    The bundles and level-0 tiles with new entries, what stands above those tiles, and the right edge: O(new - old + log
    new).
    """
    if new == 0:
        return
    for index in range(old // TILE, -(-new // TILE)):
        if old < new:
            yield Where(None, index, width_at(new, 0, index))
    for level in range(levels(new)):
        first, last = old >> TILE_BITS * (level + 1), new >> TILE_BITS * (level + 1)
        for index in range(first, last + 1):
            width = width_at(new, level, index)
            if width and (old < new or index == last):
                yield Where(level, index, width)
