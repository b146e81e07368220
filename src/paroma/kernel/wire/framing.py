"""What travels: msgpack for messages, raw chunks with offsets for arrays. Limits are checked before decoding.

A message is scanned first: its headers alone say how deep it is, how many values it holds and whether a length
points beyond its end. Only then does msgspec make objects of it.
"""

import hashlib
import math
import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar, cast, overload

import msgspec

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

T = TypeVar("T")

MOST_BYTES: Final = 4 << 20
MOST_DEPTH: Final = 16
MOST_ITEMS: Final = 50_000
CHUNK_BYTES: Final = 1 << 20

# magic, SHA-256 of the whole upload, its length in bytes, the offset of this chunk in bytes
_CHUNK: Final = struct.Struct(">4s32sQQ")
_MAGIC: Final = b"PAC1"


class Malformed(BadInput):
    """A message that cannot be read, or is beyond a limit. The same bytes will not be read later either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of an upload. `whole` names the upload: the SHA-256 of all its bytes."""

    whole: bytes  # 32 bytes
    total: int  # bytes of the whole upload
    offset: int  # bytes before this piece
    content: bytes

    @property
    def end(self) -> int:
        """The offset of the next piece, in bytes."""
        return self.offset + len(self.content)


def pack(message: object) -> bytes:
    """`message` (a msgspec Struct or plain values) as msgpack; the same value gives the same bytes."""
    return msgspec.msgpack.encode(message, order="deterministic")


@overload
def unpack(
    data: bytes | memoryview, kind: type[T], most_bytes: int = ..., *, most_depth: int = ..., most_items: int = ...
) -> T: ...
@overload
def unpack(
    data: bytes | memoryview, kind: Hashable, most_bytes: int = ..., *, most_depth: int = ..., most_items: int = ...
) -> Any: ...
def unpack(
    data: bytes | memoryview,
    kind: Any,
    most_bytes: int = MOST_BYTES,
    *,
    most_depth: int = MOST_DEPTH,
    most_items: int = MOST_ITEMS,
) -> Any:
    """The message of type `kind` in `data`. `kind` may be a union of tagged Structs. Raises Malformed."""
    if len(data) > most_bytes:
        raise _malformed(f"it has {len(data)} bytes, at most {most_bytes} are read")
    scan(data, most_depth=most_depth, most_items=most_items)
    try:
        return _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise _malformed(printable(str(problem).lower(), longest=200)) from problem


def chunks(content: bytes | memoryview, *, start: int = 0, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """`content` from offset `start` on, as framed chunks of at most `size` bytes. An empty upload is one chunk."""
    view = memoryview(content).cast("B")
    whole = hashlib.sha256(view).digest()
    for offset in range(start, max(len(view), 1), size):
        yield _CHUNK.pack(_MAGIC, whole, len(view), offset) + bytes(view[offset : offset + size])


def read_chunk(data: bytes, *, most_total: int, most_chunk: int = CHUNK_BYTES) -> Chunk:
    """One framed chunk. most_total, most_chunk: bytes of the upload and of this piece. Raises Malformed."""
    if len(data) < _CHUNK.size:
        raise _malformed("the chunk is shorter than its header")
    magic, whole, total, offset = _CHUNK.unpack_from(data)
    length = len(data) - _CHUNK.size
    if magic != _MAGIC:
        raise _malformed("it does not begin as a chunk does")
    if total > most_total:
        raise _malformed(f"the upload has {total} bytes, at most {most_total} are expected")
    if length > most_chunk or offset + length > total:
        raise _malformed("the chunk is longer than it may be")
    if length == 0 and total != 0:
        raise _malformed("the chunk is empty")
    return Chunk(whole=whole, total=total, offset=offset, content=data[_CHUNK.size :])


def scan(data: bytes | memoryview, *, most_depth: int = MOST_DEPTH, most_items: int = MOST_ITEMS) -> None:
    """Walk the headers of one msgpack value. Raises Malformed.

    Refused: more than the limits, lengths that point beyond the end, extension types, floats that are not finite,
    a text key twice in one map, anything after the value.
    Source: the msgpack specification, "Formats" (github.com/msgpack/msgpack, spec.md).
    """
    view = memoryview(data).cast("B")
    end, at, items = len(view), 0, 0
    # one row per open array or map: how many values are still to come, and the keys seen (None for an array)
    rows: list[tuple[int, set[bytes] | None]] = [(1, None)]
    while rows:
        left, keys = rows.pop()
        if left == 0:
            continue
        rows.append((left - 1, keys))
        is_key = keys is not None and left % 2 == 0
        items += 1
        if items > most_items:
            raise _malformed(f"it holds more than {most_items} values")
        if at >= end:
            raise _malformed("it ends too early")
        head, at = view[at], at + 1
        width, body, children, is_map = _header(head, view, at, end)
        at += width
        if body > end - at or children > end - at:
            raise _malformed("a length points beyond its end")
        if head in _FLOATS and not math.isfinite(_FLOATS[head].unpack_from(view, at)[0]):
            raise _malformed("it holds a number that is not finite")
        if is_key and _is_text(head):
            key = bytes(view[at : at + body])
            if key in cast("set[bytes]", keys):
                raise _malformed(f"the key `{printable(key.decode('utf-8', 'replace'))}` stands twice in one map")
            cast("set[bytes]", keys).add(key)
        at += body
        if children:
            if len(rows) > most_depth:
                raise _malformed(f"it is nested deeper than {most_depth} levels")
            rows.append((children, set() if is_map else None))
    if at != end:
        raise _malformed("something follows the message")


_FLOATS: Final = {0xCA: struct.Struct(">f"), 0xCB: struct.Struct(">d")}
_FIXED: Final = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bin and str: bytes of the length
_GROUPS: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # array and map: bytes of the count


def _header(head: int, view: memoryview, at: int, end: int) -> tuple[int, int, int, bool]:
    """Bytes of the length field, bytes of the body, values inside, whether a map: of the value that `head` begins."""
    if head <= 0x7F or head >= 0xE0:
        return 0, 0, 0, False
    if head <= 0x8F:
        return 0, 0, 2 * (head & 0x0F), True
    if head <= 0x9F:
        return 0, 0, head & 0x0F, False
    if head <= 0xBF:
        return 0, head & 0x1F, 0, False
    if head in _FIXED:
        return 0, _FIXED[head], 0, False
    width = _SIZED.get(head) or _GROUPS.get(head)
    if width is None:
        raise _malformed(f"the type 0x{head:02x} is not used here")
    if width > end - at:
        raise _malformed("it ends too early")
    count = int.from_bytes(view[at : at + width], "big")
    if head in _SIZED:
        return width, count, 0, False
    is_map = head >= 0xDE
    return width, 0, count * (2 if is_map else 1), is_map


def _is_text(head: int) -> bool:
    return 0xA0 <= head <= 0xBF or 0xD9 <= head <= 0xDB


@lru_cache(maxsize=256)
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def _malformed(why: str) -> Malformed:
    return Malformed(
        f"this message is refused: {why}", do="upgrade the program that sent it, or look for what changed it on its way"
    )
