"""What is to be sent, written in the transaction that decided it: it is sent at least once, or was never decided.

The sender reads `unsent`, sends, and marks what the receiver confirmed. After a kill between the two it sends again:
the receiver knows each row by its id.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from paroma.kernel.errors import ParomaError
from paroma.kernel.ids import printable
from paroma.kernel.store.database import upsert
from paroma.kernel.store.tables import OUTBOX


class DifferentContent(ParomaError):
    """An id was used for two different bodies. Two things must never carry one id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One row to be sent."""

    id: str
    receiver: str
    body: bytes
    at: float  # when it was added, in seconds since 1970


def add(tx: Connection, outgoing: Outgoing) -> bool:
    """Put `outgoing` at the end; False where the very same is there already. Raises DifferentContent."""
    row = {"id": outgoing.id, "receiver": outgoing.receiver, "body": outgoing.body, "at": outgoing.at}
    statement = (
        upsert(tx, OUTBOX).values(row).on_conflict_do_nothing(index_elements=[OUTBOX.c.id]).returning(OUTBOX.c.id)
    )
    if tx.execute(statement).scalar() is not None:
        return True
    there = tx.execute(select(OUTBOX.c.receiver, OUTBOX.c.body).where(OUTBOX.c.id == outgoing.id)).one()
    if (there.receiver, bytes(there.body)) != (outgoing.receiver, outgoing.body):
        raise DifferentContent(
            f"`{printable(outgoing.id)}` is waiting to be sent with other content",
            do="give every message an id of its own",
        )
    return False


def unsent(tx: Connection, receiver: str, *, most: int) -> tuple[Outgoing, ...]:
    """The oldest rows for `receiver` that are not confirmed, in the order in which they were added; at most `most`."""
    wanted = (
        select(OUTBOX.c.id, OUTBOX.c.receiver, OUTBOX.c.body, OUTBOX.c.at)
        .where(OUTBOX.c.receiver == receiver, OUTBOX.c.sent_at.is_(None))
        .order_by(OUTBOX.c.place)
        .limit(most)
    )
    return tuple(
        Outgoing(id=row.id, receiver=row.receiver, body=bytes(row.body), at=row.at) for row in tx.execute(wanted)
    )


def mark_sent(tx: Connection, ids: Iterable[str], *, at: float) -> None:
    """The receiver has these durably. Safe to repeat; the first time stands."""
    tx.execute(update(OUTBOX).where(OUTBOX.c.id.in_(list(ids)), OUTBOX.c.sent_at.is_(None)).values(sent_at=at))


def forget(tx: Connection, *, sent_before: float) -> int:
    """Delete what was confirmed before `sent_before` (seconds since 1970); how many rows. Their ids are free again."""
    return tx.execute(delete(OUTBOX).where(OUTBOX.c.sent_at < sent_before)).rowcount
