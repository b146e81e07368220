"""The owner of a log gathers cosignatures until a quorum has signed one and the same checkpoint.

A busy log has a new head every few milliseconds, and witnesses asked one after the other would each sign another. So
one checkpoint at a time is on offer, until enough have signed it or it has waited long enough.
"""

from sqlalchemy import Connection, delete, func, select

from paroma.kernel.errors import Refused
from paroma.kernel.store.database import upsert
from paroma.trust.audit import log as logs
from paroma.trust.audit.checkpoint import Checkpoint, body, peek
from paroma.trust.audit.cosignatures import check_cosignature
from paroma.trust.audit.log import LogName
from paroma.trust.audit.notes import NoteKey, Signature, signature_line
from paroma.trust.audit.tables import COSIGNATURES, OFFERS

HOLD = 5.0
"""Seconds for which a checkpoint stays on offer while its quorum is incomplete."""
RENEW = 20.0
"""Seconds after which a checkpoint with its quorum gives way to a newer one: a third of the grace."""

KEPT = 8
"""Offers that are kept at most, beside the one with a quorum."""


class CosignatureUnexpected(Refused):
    """A cosignature for a size that was never on offer."""


def offer(tx: Connection, log: LogName, *, k: int, now: float) -> Checkpoint:
    """The checkpoint that witnesses are asked for; the head becomes the new offer when the last one is done or stale.

    This, and not the head, goes out with every message: a witness signs growth only, and would have to refuse an offer
    that is older than a head it was shown. k: cosignatures that make it done. now: seconds since 1970. Raises
    LogUnknown.
    """
    last = tx.execute(
        select(OFFERS.c.size, OFFERS.c.note, OFFERS.c.at)
        .where(OFFERS.c.log == log)
        .order_by(OFFERS.c.size.desc())
        .limit(1)
    ).one_or_none()
    head = logs.checkpoint(tx, log)
    if last is not None:
        done = _signed(tx, log, last.size) >= k
        waited = abs(now - last.at)
        if waited < (RENEW if done else HOLD) and not (done and head.size > last.size):
            origin, size, root = peek(last.note)
            return Checkpoint(origin, size, root, last.note)
    row = {"log": log, "size": head.size, "note": head.note, "at": now}
    tx.execute(
        upsert(tx, OFFERS)
        .values(row)
        .on_conflict_do_update(index_elements=["log", "size"], set_={"at": now, "note": head.note})
    )
    _forget_old(tx, log, k)
    return head


def offered_size(tx: Connection, log: LogName) -> int:
    """The size of the checkpoint that is on offer, or of the head where nothing was offered yet."""
    size = tx.execute(select(func.max(OFFERS.c.size)).where(OFFERS.c.log == log)).scalar()
    return logs.checkpoint(tx, log).size if size is None else int(size)


def take_in(tx: Connection, log: LogName, size: int, signature: Signature, key: NoteKey) -> None:
    """Keep a witness's cosignature over the checkpoint of `size` entries; of two by one witness the younger.

    Raises NoteUnsigned where it is not by `key` over that checkpoint, CosignatureUnexpected where that size was not on
    offer.
    """
    note = tx.execute(select(OFFERS.c.note).where(OFFERS.c.log == log, OFFERS.c.size == size)).scalar_one_or_none()
    if note is None:
        raise CosignatureUnexpected(
            f"no checkpoint of {size} entries is on offer", do="cosign the checkpoint that was sent last"
        )
    at = check_cosignature(body(*peek(note)), signature, key)
    row = {"log": log, "size": size, "witness": key.name, "at": at, "line": signature.line}
    statement = upsert(tx, COSIGNATURES).values(row)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["log", "size", "witness"],
            set_={"at": statement.excluded.at, "line": statement.excluded.line},
            where=COSIGNATURES.c.at < statement.excluded.at,
        )
    )


def cosigned_note(tx: Connection, log: LogName, k: int) -> str | None:
    """The largest checkpoint that `k` witnesses have cosigned, with all their lines; None where there is none yet.

    Whether the lines are of those that must sign, and young enough, is for `cosignatures.cosigned` to say, at whoever
    relies on it.
    """
    size = _largest(tx, log, k)
    if size is None:
        return None
    note: str = tx.execute(select(OFFERS.c.note).where(OFFERS.c.log == log, OFFERS.c.size == size)).scalar_one()
    lines = tx.execute(
        select(COSIGNATURES.c.line)
        .where(COSIGNATURES.c.log == log, COSIGNATURES.c.size == size)
        .order_by(COSIGNATURES.c.witness)
    ).scalars()
    return note + "".join(lines)


def signature_of(line: str) -> Signature:
    """A cosignature's line, as it travels by itself. Raises NoteInvalid."""
    return signature_line(line.removesuffix("\n"))


def _signed(tx: Connection, log: str, size: int) -> int:
    count = select(func.count()).select_from(COSIGNATURES).where(COSIGNATURES.c.log == log, COSIGNATURES.c.size == size)
    return tx.execute(count).scalar_one()


def _largest(tx: Connection, log: str, k: int) -> int | None:
    enough = (
        select(COSIGNATURES.c.size)
        .where(COSIGNATURES.c.log == log)
        .group_by(COSIGNATURES.c.size)
        .having(func.count() >= max(k, 1))
        .order_by(COSIGNATURES.c.size.desc())
        .limit(1)
    )
    return tx.execute(enough).scalar_one_or_none()


def _forget_old(tx: Connection, log: str, k: int) -> None:
    """The newest offers stay, for cosignatures that are on their way, and the one that has its quorum."""
    newest = select(OFFERS.c.size).where(OFFERS.c.log == log).order_by(OFFERS.c.size.desc()).limit(KEPT)
    keep = set(tx.execute(newest).scalars()) | {_largest(tx, log, k)} - {None}
    for table in (OFFERS, COSIGNATURES):
        tx.execute(delete(table).where(table.c.log == log, table.c.size.not_in(keep)))
