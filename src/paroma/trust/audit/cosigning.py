"""The owner of a log gathers cosignatures until a quorum has signed one and the same checkpoint.

A busy log has a new head every few milliseconds, and witnesses asked one after the other would each sign another. So
one checkpoint at a time is on offer, until enough have signed it or it has waited long enough.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Executable, bindparam, delete, func, select

from paroma.kernel.errors import Refused
from paroma.kernel.store.database import upsert
from paroma.trust.audit import log as logs
from paroma.trust.audit.checkpoint import Checkpoint, body, peek
from paroma.trust.audit.cosignatures import check_cosignature
from paroma.trust.audit.log import LogName
from paroma.trust.audit.notes import NoteKey, Signature, signature_line
from paroma.trust.audit.tables import COSIGNATURES, LOGS, OFFERS

HOLD = 5.0
"""Seconds for which a checkpoint stays on offer while its quorum is incomplete."""
RENEW = 20.0
"""Seconds after which a checkpoint with its quorum gives way to a newer one: a third of the grace."""

KEPT = 8
"""Offers that are kept at most, beside the one with a quorum."""


# statements of the hot path, built once: every message of every site asks these
_SIGNED = (
    select(func.count())
    .select_from(COSIGNATURES)
    .where(COSIGNATURES.c.log == OFFERS.c.log, COSIGNATURES.c.size == OFFERS.c.size)
    .correlate(OFFERS)
    .scalar_subquery()
)
_HEAD_SIZE = select(LOGS.c.size).where(LOGS.c.log == bindparam("log")).scalar_subquery()
_LAST = (
    select(OFFERS.c.size, OFFERS.c.note, OFFERS.c.at, _SIGNED.label("signed"), _HEAD_SIZE.label("head"))
    .where(OFFERS.c.log == bindparam("log"))
    .order_by(OFFERS.c.size.desc())
    .limit(1)
)
_LARGEST = (
    select(COSIGNATURES.c.size)
    .where(COSIGNATURES.c.log == bindparam("log"))
    .group_by(COSIGNATURES.c.size)
    .having(func.count() >= bindparam("k"))
    .order_by(COSIGNATURES.c.size.desc())
    .limit(1)
)
_COSIGNED = (
    select(OFFERS.c.note, COSIGNATURES.c.line)
    .join(COSIGNATURES, (COSIGNATURES.c.log == OFFERS.c.log) & (COSIGNATURES.c.size == OFFERS.c.size))
    .where(OFFERS.c.log == bindparam("log"), OFFERS.c.size == _LARGEST.scalar_subquery())
    .order_by(COSIGNATURES.c.witness)
)
_KEEP_YOUNGER: dict[str, Executable] = {}  # by dialect
_OFFERED = select(func.max(OFFERS.c.size)).where(OFFERS.c.log == bindparam("log"))
_NOTE = select(OFFERS.c.note).where(OFFERS.c.log == bindparam("log"), OFFERS.c.size == bindparam("size"))


class CosignatureUnexpected(Refused):
    """A cosignature for a size that was never on offer."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What is on offer. due: whether the head is to take its place."""

    checkpoint: Checkpoint
    due: bool


def offer(tx: Connection, log: LogName, *, k: int, now: float) -> Checkpoint:
    """The checkpoint that witnesses are asked for; the head becomes the new offer when the last one is done or stale.

    This, and not the head, goes out with every message: a witness signs growth only, and would have to refuse an offer
    that is older than a head it was shown. k: cosignatures that make it done. now: seconds since 1970. Raises
    LogUnknown.
    """
    found = on_offer(tx, log, k=k, now=now)
    if not found.due:
        return found.checkpoint
    head = logs.checkpoint(tx, log)
    row = {"log": log, "size": head.size, "note": head.note, "at": now}
    tx.execute(
        upsert(tx, OFFERS)
        .values(row)
        .on_conflict_do_update(index_elements=["log", "size"], set_={"at": now, "note": head.note})
    )
    _forget_old(tx, log, k)
    return head


def on_offer(tx: Connection, log: LogName, *, k: int, now: float) -> Offered:
    """What is on offer, and whether `offer` would change it. Writes nothing. Raises LogUnknown."""
    last = tx.execute(_LAST, {"log": log}).one_or_none()
    if last is None:
        return Offered(logs.checkpoint(tx, log), due=True)
    done = last.signed >= k
    stale = abs(now - last.at) >= (RENEW if done else HOLD)
    origin, size, root = peek(last.note)
    return Offered(Checkpoint(origin, size, root, last.note), due=stale or (done and last.head > last.size))


def offered_size(tx: Connection, log: LogName) -> int:
    """The size of the checkpoint that is on offer, or of the head where nothing was offered yet."""
    size = tx.execute(_OFFERED, {"log": log}).scalar()
    return logs.checkpoint(tx, log).size if size is None else int(size)


def take_in(tx: Connection, log: LogName, size: int, signature: Signature, key: NoteKey) -> None:
    """Keep a witness's cosignature over the checkpoint of `size` entries; of two by one witness the younger.

    Raises NoteUnsigned where it is not by `key` over that checkpoint, CosignatureUnexpected where that size was not on
    offer.
    """
    note = tx.execute(_NOTE, {"log": log, "size": size}).scalar_one_or_none()
    if note is None:
        raise CosignatureUnexpected(
            f"no checkpoint of {size} entries is on offer", do="cosign the checkpoint that was sent last"
        )
    at = check_cosignature(body(*peek(note)), signature, key)
    row = {"log": log, "size": size, "witness": key.name, "at": at, "line": signature.line}
    tx.execute(_keep_younger(tx), row)


def cosigned_note(tx: Connection, log: LogName, k: int) -> str | None:
    """The largest checkpoint that `k` witnesses have cosigned, with all their lines; None where there is none yet.

    Whether the lines are of those that must sign, and young enough, is for `cosignatures.cosigned` to say, at whoever
    relies on it.
    """
    rows = tx.execute(_COSIGNED, {"log": log, "k": max(k, 1)}).all()
    return None if not rows else rows[0].note + "".join([row.line for row in rows])


def signature_of(line: str) -> Signature:
    """A cosignature's line, as it travels by itself. Raises NoteInvalid."""
    return signature_line(line.removesuffix("\n"))


def _keep_younger(tx: Connection) -> Executable:
    if tx.dialect.name not in _KEEP_YOUNGER:
        statement = upsert(tx, COSIGNATURES)
        _KEEP_YOUNGER[tx.dialect.name] = statement.on_conflict_do_update(
            index_elements=["log", "size", "witness"],
            set_={"at": statement.excluded.at, "line": statement.excluded.line},
            where=COSIGNATURES.c.at < statement.excluded.at,
        )
    return _KEEP_YOUNGER[tx.dialect.name]


def _forget_old(tx: Connection, log: str, k: int) -> None:
    """The newest offers stay, for cosignatures that are on their way, and the one that has its quorum."""
    newest = select(OFFERS.c.size).where(OFFERS.c.log == log).order_by(OFFERS.c.size.desc()).limit(KEPT)
    largest = tx.execute(_LARGEST, {"log": log, "k": max(k, 1)}).scalar_one_or_none()
    keep = set(tx.execute(newest).scalars()) | {largest} - {None}
    for table in (OFFERS, COSIGNATURES):
        tx.execute(delete(table).where(table.c.log == log, table.c.size.not_in(keep)))
