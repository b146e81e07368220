"""The hub's durable mailboxes: what waits for each site, and how far each site has been heard.

All functions run in the caller's transaction: a message is posted if and only if the change that caused it is kept,
and counted as received if and only if its effect is.
"""

import enum
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import upsert
from paroma.trust.channel.messages import MOST_MESSAGE, MOST_MESSAGES, Envelope, MessageTooLong, together
from paroma.trust.channel.tables import MAILBOXES, POSTED, RECEIVED


class Gap(BadInput):
    """A message came before the one that it follows. Nothing was done; the site will send both."""

    def __init__(self, site: SiteId, expected: int, got: int) -> None:
        super().__init__(
            f"site `{site}` sent message {got} where {expected} is next", do="send from the missing one on"
        )


class SequenceReused(Refused):
    """A site sends another message under a number that was used: its store is older than what it has said."""

    def __init__(self, site: SiteId, seq: int) -> None:
        super().__init__(
            f"site `{site}` sends a second message {seq}, another than the first: its database is older",
            do="bring the newest state of the site's database back; an older copy cannot take part",
        )


class Receipt(enum.Enum):
    """Whether a message is to have an effect now, or had it already."""

    NEW = "new"
    SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a site and the hub are with each other: numbers of messages, 0 for none."""

    posted: int = 0
    acknowledged: int = 0
    received: int = 0


def position(tx: Connection, site: SiteId) -> Position:
    """How far the two are."""
    row = tx.execute(select(MAILBOXES).where(MAILBOXES.c.site == site)).mappings().one_or_none()
    if row is None:
        return Position()
    return Position(posted=row["posted"], acknowledged=row["acknowledged"], received=row["received"])


def post(tx: Connection, to: SiteId, id: str, body: bytes, *, now: float) -> int:  # noqa: A002  # the wire's word
    """Put a message into the mailbox of `to`; its number. The same `id` again is the same message, whatever its body.

    After the commit the caller wakes the site's parked request. now: seconds since 1970. Raises MessageTooLong.
    """
    if len(body) > MOST_MESSAGE:
        raise MessageTooLong(len(body))
    known = tx.execute(select(POSTED.c.seq).where(POSTED.c.site == to, POSTED.c.id == id)).scalar_one_or_none()
    if known is not None:
        return int(known)
    _open(tx, to)
    tx.execute(update(MAILBOXES).where(MAILBOXES.c.site == to).values(posted=MAILBOXES.c.posted + 1))
    seq = position(tx, to).posted
    tx.execute(insert(POSTED).values(site=to, seq=seq, id=id, body=body, at=now))
    return seq


def take(tx: Connection, site: SiteId, after: int) -> tuple[Envelope, ...]:
    """The messages for `site` that follow number `after`, the oldest first, as many as fit into a reply."""
    rows = tx.execute(
        select(POSTED.c.seq, POSTED.c.id, POSTED.c.body)
        .where(POSTED.c.site == site, POSTED.c.seq > after, POSTED.c.body.is_not(None))
        .order_by(POSTED.c.seq)
        .limit(MOST_MESSAGES)
    )
    return together([Envelope(seq=row.seq, id=row.id, body=bytes(row.body)) for row in rows])


def acknowledge(tx: Connection, site: SiteId, received: int) -> None:
    """The site has handled the messages up to number `received`: their content is forgotten. An older number changes
    nothing.

    Raises Refused where the site has handled more than was ever posted: this hub's store is older than what it has
    said.
    """
    where = position(tx, site)
    if received > where.posted:
        raise Refused(
            f"site `{site}` has handled message {received}, and the newest here is {where.posted}",
            do="bring the newest state of the hub's database back; an older copy cannot go on",
        )
    if received <= where.acknowledged:
        return
    tx.execute(update(MAILBOXES).where(MAILBOXES.c.site == site).values(acknowledged=received))
    tx.execute(
        update(POSTED)
        .where(POSTED.c.site == site, POSTED.c.seq <= received, POSTED.c.body.is_not(None))
        .values(body=None)
    )


def receive(tx: Connection, site: SiteId, message: Envelope, *, now: float) -> Receipt:
    """Count a message of `site`: NEW where its effect belongs into this transaction, SEEN where it happened before.

    Raises Gap, SequenceReused.
    """
    known = position(tx, site).received
    if message.seq <= known:
        mine = RECEIVED.c.site == site, RECEIVED.c.seq == message.seq
        first = tx.execute(select(RECEIVED.c.id).where(*mine)).scalar_one_or_none()
        if first is not None and first != message.id:
            raise SequenceReused(site, message.seq)
        return Receipt.SEEN
    if message.seq != known + 1:
        raise Gap(site, known + 1, message.seq)
    _open(tx, site)
    tx.execute(update(MAILBOXES).where(MAILBOXES.c.site == site).values(received=message.seq))
    tx.execute(insert(RECEIVED).values(site=site, seq=message.seq, id=message.id, at=now))
    return Receipt.NEW


def prune(tx: Connection, *, before: float) -> None:
    """Forget the ids of messages acknowledged or received before `before` (seconds since 1970).

    For a job, once a day.
    """
    tx.execute(delete(POSTED).where(POSTED.c.body.is_(None), POSTED.c.at < before))
    tx.execute(delete(RECEIVED).where(RECEIVED.c.at < before))


def _open(tx: Connection, site: SiteId) -> None:
    empty = upsert(tx, MAILBOXES).values(site=site, posted=0, acknowledged=0, received=0)
    tx.execute(empty.on_conflict_do_nothing())
