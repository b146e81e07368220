"""The log of this program: entries, hash tiles and the signed head in one transaction of the caller.

INVARIANT: the head's root is the Merkle hash of the entries 0 to size - 1, and the tiles hold every complete subtree of
it. What an act writes and the entry that tells of it are durable together or not at all, because they share the
transaction. The head moves by compare-and-swap, so that two writers can never sign two different logs of one size.
"""

import functools
from collections.abc import Sequence
from typing import NewType

from sqlalchemy import Connection, Executable, Select, and_, bindparam, insert, or_, select, update

from paroma.kernel.errors import ParomaError, Unavailable
from paroma.kernel.ids import printable
from paroma.kernel.store.database import upsert
from paroma.trust.audit import checkpoint as checkpoints
from paroma.trust.audit.checkpoint import Checkpoint
from paroma.trust.audit.merkle import EMPTY, EMPTY_ROOT, HASH, TILE, TILE_BITS, Edge, edge_width, leaf_hashes, levels
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.audit.proofs import Consistency, Inclusion, nodes_of, prove_consistency, prove_inclusion
from paroma.trust.audit.tables import ENTRIES, LOGS, TILES
from paroma.trust.audit.tiles import (
    CHECKPOINT,
    MOST_ENTRY,
    EntryTooLong,
    TileMissing,
    TileReader,
    Where,
    bundle,
    width_at,
)

LogName = NewType("LogName", str)
FEDERATION = LogName("federation")
"""The hub's log of everything that is shared."""
SITE = LogName("site")
"""A site's log of its own acts."""


# statements of the hot path, built once: building them costs more than running them
_HEAD = select(LOGS.c.origin, LOGS.c.size, LOGS.c.root, LOGS.c.note).where(LOGS.c.log == bindparam("log"))
_INSERT = insert(ENTRIES)
_SWAP = (
    update(LOGS)
    .where(LOGS.c.log == bindparam("this"), LOGS.c.size == bindparam("old_size"), LOGS.c.root == bindparam("old_root"))
    .values(size=bindparam("size"), root=bindparam("root"), note=bindparam("note"))
)
_TILE = select(TILES.c.hashes).where(
    TILES.c.log == bindparam("log"), TILES.c.level == bindparam("level"), TILES.c.number == bindparam("number")
)
_WRITE_TILES: dict[str, Executable] = {}


class LogUnknown(Unavailable):
    """There is no log of that name in this database yet."""


class LogRaced(Unavailable):
    """Another writer moved the head in between: nothing of this was written."""


class LogDamaged(ParomaError):
    """The tiles do not add up to the head, or a witness knows more: this database was altered, or is an older copy."""


def begin(tx: Connection, log: LogName, signer: CheckpointSigner) -> Checkpoint:
    """The head of the log; a log without entries where there was none. Safe to repeat. Raises LogDamaged."""
    found = _head(tx, log)
    if found is None:
        head = checkpoints.sign(0, EMPTY_ROOT, signer)
        fresh = {"log": log, "origin": head.origin, "size": 0, "root": head.root, "note": head.note}
        tx.execute(upsert(tx, LOGS).values(fresh).on_conflict_do_nothing(index_elements=["log"]))
        found = checkpoint(tx, log)
    if found.origin != signer.origin:
        raise LogDamaged(
            f"the log `{log}` is called `{printable(found.origin)}`, not `{printable(signer.origin)}`",
            do="start the program with the key and the name that the log was begun with",
        )
    return found


def append(tx: Connection, log: LogName, entries: Sequence[bytes], signer: CheckpointSigner) -> tuple[int, ...]:
    """Add entries, in this order, and sign the new head. Returns their places, from 0. Begins the log if there is none.

    Durable when the caller's transaction is; until then nobody may be told. Raises EntryTooLong, LogRaced, LogDamaged.
    """
    for entry in entries:
        if len(entry) > MOST_ENTRY:
            raise EntryTooLong(
                f"an entry has {len(entry)} bytes, {MOST_ENTRY} are the most", do="log a hash of it instead"
            )
    old = begin(tx, log, signer)
    if not entries:
        return ()
    try:
        edge = edge_at(tx, log, old.size)
    except TileMissing:
        raise _damaged(log, "a tile is torn or gone") from None
    if edge.root() != old.root:
        # never sign on top of what is not understood: the signature would make the damage official
        raise _damaged(log, "its tiles do not add up to its head")
    grown, changed = edge.grow(leaf_hashes(entries))
    new = checkpoints.sign(grown.size, grown.root(), signer)
    swap = {"this": log, "old_size": old.size, "old_root": old.root}
    swapped = tx.execute(_SWAP, swap | {"size": new.size, "root": new.root, "note": new.note})
    if swapped.rowcount != 1:
        raise LogRaced(f"another writer moved the head of the log `{log}`", do="repeat the whole transaction")
    numbers = tuple(range(old.size, new.size))
    tx.execute(
        _INSERT,
        [{"log": log, "number": number, "entry": entry} for number, entry in zip(numbers, entries, strict=True)],
    )
    tx.execute(
        _write_tiles(tx), [{"log": log, "level": t.level, "number": t.index, "hashes": t.hashes} for t in changed]
    )
    return numbers


def checkpoint(tx: Connection, log: LogName) -> Checkpoint:
    """The signed head. Raises LogUnknown."""
    found = _head(tx, log)
    if found is None:
        raise LogUnknown(f"there is no log `{printable(log)}` here", do="start the program that writes it")
    return found


def entries(tx: Connection, log: LogName, first: int, end: int) -> list[bytes]:
    """The entries `first` to `end - 1`, as many as there are."""
    rows = tx.execute(
        select(ENTRIES.c.entry)
        .where(ENTRIES.c.log == log, ENTRIES.c.number >= first, ENTRIES.c.number < end)
        .order_by(ENTRIES.c.number)
    )
    return [bytes(row.entry) for row in rows]


def tile(tx: Connection, log: LogName, level: int, index: int, width: int = TILE) -> bytes:
    """The first `width` hashes of a tile. Raises TileMissing where the log does not hold as many."""
    row = tx.execute(_TILE, {"log": log, "level": level, "number": index}).one_or_none()
    if row is None or len(row.hashes) < width * HASH:
        raise _missing(Where(level, index, width))
    return bytes(row.hashes[: width * HASH])


def entries_tile(tx: Connection, log: LogName, index: int, width: int = TILE) -> bytes:
    """The bundle of `width` entries from number 256 * index on. Raises TileMissing."""
    found = entries(tx, log, index * TILE, index * TILE + width)
    if len(found) != width:
        raise _missing(Where(None, index, width))
    return bundle(found)


def serve(tx: Connection, log: LogName, path: str) -> bytes:
    """The bytes under a path of C2SP tlog-tiles. Raises BadInput for another path, TileMissing, LogUnknown."""
    if path == CHECKPOINT:
        return checkpoint(tx, log).note.encode()
    where = Where.parse(path)
    if where.level is None:
        return entries_tile(tx, log, where.index, where.width)
    return tile(tx, log, where.level, where.index, where.width)


def reader(tx: Connection, log: LogName) -> TileReader:
    """The log as others read it."""
    return lambda path: serve(tx, log, path)


def edge_at(tx: Connection, log: LogName, size: int) -> Edge:
    """The right edge of the log when it had `size` entries: one row a level. Raises TileMissing."""
    wheres = [
        Where(level, size >> TILE_BITS * (level + 1), width)
        for level in range(levels(size))
        if (width := edge_width(size, level))
    ]
    if not wheres:
        return EMPTY
    places: dict[str, str | int | None] = {"log": log}
    for n, where in enumerate(wheres):
        places |= {f"level{n}": where.level, f"number{n}": where.index}
    rows = tx.execute(_tiles_at(len(wheres)), places)
    held = {row.level: bytes(row.hashes) for row in rows}
    tiles = [b""] * levels(size)
    for where in wheres:
        if where.level is None or len(held.get(where.level, b"")) < where.width * HASH:
            raise _missing(where)
        tiles[where.level] = held[where.level][: where.width * HASH]
    return Edge(size, tuple(tiles))


def root_at(tx: Connection, log: LogName, size: int) -> bytes:
    """The head that the log had at `size` entries. Raises TileMissing."""
    return edge_at(tx, log, size).root()


def inclusion(tx: Connection, log: LogName, number: int, size: int) -> Inclusion:
    """Proof that entry `number` is in the log of `size` entries. Raises ProofInvalid, TileMissing."""
    return prove_inclusion(
        number, _held(tx, log, size), nodes_of(lambda level, index: _tile_at(tx, log, size, level, index))
    )


def consistency(tx: Connection, log: LogName, old: int, new: int) -> Consistency:
    """Proof that the log of `new` entries continues that of `old`. Raises ProofInvalid, TileMissing."""
    return consistency_held(tx, log, old, _held(tx, log, new))


def consistency_held(tx: Connection, log: LogName, old: int, new: int) -> Consistency:
    """`consistency` for whoever has read in this transaction that the log has `new` entries at least."""
    return prove_consistency(old, new, nodes_of(lambda level, index: _tile_at(tx, log, new, level, index)))


def require_holds(tx: Connection, log: LogName, witnessed: Checkpoint) -> None:
    """Check that the log here continues a checkpoint of it that a witness remembers. Raises LogDamaged, LogUnknown.

    To be asked before a program opens after a restart: a database restored from a backup is an older log, and what it
    would append now has been appended differently before.
    """
    if witnessed.size > checkpoint(tx, log).size:
        raise _damaged(log, f"a witness has seen {witnessed.size} entries of it, here are fewer")
    if root_at(tx, log, witnessed.size) != witnessed.root:
        raise _damaged(log, f"a witness has seen another beginning of {witnessed.size} entries")


def _head(tx: Connection, log: LogName) -> Checkpoint | None:
    row = tx.execute(_HEAD, {"log": log}).one_or_none()
    return None if row is None else Checkpoint(row.origin, row.size, bytes(row.root), row.note)


def _write_tiles(tx: Connection) -> Executable:
    if tx.dialect.name not in _WRITE_TILES:
        statement = upsert(tx, TILES)
        _WRITE_TILES[tx.dialect.name] = statement.on_conflict_do_update(
            index_elements=["log", "level", "number"], set_={"hashes": statement.excluded.hashes}
        )
    return _WRITE_TILES[tx.dialect.name]


@functools.cache
def _tiles_at(count: int) -> Select[tuple[int, bytes]]:
    """`count` tiles in one statement; there are never more than eight levels."""
    places = [
        and_(TILES.c.level == bindparam(f"level{n}"), TILES.c.number == bindparam(f"number{n}")) for n in range(count)
    ]
    return select(TILES.c.level, TILES.c.hashes).where(TILES.c.log == bindparam("log"), or_(*places))


def _tile_at(tx: Connection, log: LogName, size: int, level: int, index: int) -> bytes:
    return tile(tx, log, level, index, width_at(size, level, index))


def _held(tx: Connection, log: LogName, size: int) -> int:
    if size > checkpoint(tx, log).size:
        raise TileMissing(f"the log has fewer than {size} entries", do="ask for its checkpoint first")
    return size


def _missing(where: Where) -> TileMissing:
    return TileMissing(f"the log holds no `{where.path}`", do="ask for its checkpoint, and for tiles within its size")


def _damaged(log: str, what: str) -> LogDamaged:
    return LogDamaged(
        f"the log `{log}` is damaged: {what}",
        do="stop, keep the database as evidence, and bring back its latest state from a replica",
    )
