"""The hub's durable mailboxes: what waits for each site, and how far each site has been heard.

All functions run in the caller's transaction: a message is posted if and only if the change that caused it is kept,
and counted as received if and only if its effect is.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Connection,
    Executable,
    Float,
    LargeBinary,
    String,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import upsert
from paroma.trust.channel.messages import MOST_MESSAGE, MOST_MESSAGES, Envelope, MessageTooLong, together
from paroma.trust.channel.tables import MAILBOXES, POSTED, RECEIVED

# statements of the hot path, built once: building them costs more than running them
_MINE = MAILBOXES.c.site == bindparam("to")
_POSITION = select(MAILBOXES.c.posted, MAILBOXES.c.acknowledged, MAILBOXES.c.received).where(_MINE)
_NEWEST = func.coalesce(
    select(func.max(POSTED.c.seq)).where(POSTED.c.site == bindparam("to")).correlate(None).scalar_subquery(), 0
)
_NUMBER = case((MAILBOXES.c.posted > _NEWEST, MAILBOXES.c.posted), else_=_NEWEST)  # ids are pruned, numbers never again
_KNOWN = exists().where(POSTED.c.site == bindparam("to"), POSTED.c.id == bindparam("name")).correlate(None)
_POST = insert(POSTED).from_select(
    ["site", "seq", "id", "body", "at"],
    select(
        MAILBOXES.c.site,
        _NUMBER + 1,
        bindparam("name", type_=String(64)),
        bindparam("content", type_=LargeBinary),
        bindparam("now", type_=Float(53)),
    ).where(_MINE, ~_KNOWN),
)
_COUNT = update(MAILBOXES).where(_MINE).values(posted=_NUMBER)
_SEQ = select(POSTED.c.seq).where(POSTED.c.site == bindparam("to"), POSTED.c.id == bindparam("name"))
_TAKE = (
    select(POSTED.c.seq, POSTED.c.id, POSTED.c.body)
    .where(POSTED.c.site == bindparam("to"), POSTED.c.seq > bindparam("after"), POSTED.c.body.is_not(None))
    .order_by(POSTED.c.seq)
    .limit(MOST_MESSAGES)
)
_ACKNOWLEDGE = update(MAILBOXES).where(_MINE).values(acknowledged=bindparam("upto", type_=BigInteger))
_FORGET = (
    update(POSTED)
    .where(POSTED.c.site == bindparam("to"), POSTED.c.seq <= bindparam("upto"), POSTED.c.body.is_not(None))
    .values(body=None)
)
_RECEIVED = select(RECEIVED.c.id).where(RECEIVED.c.site == bindparam("to"), RECEIVED.c.seq == bindparam("number"))
_RECEIVE = update(MAILBOXES).where(_MINE).values(received=bindparam("number", type_=BigInteger))
_INSERT_RECEIVED = insert(RECEIVED)
_OPEN: dict[str, Executable] = {}  # by dialect


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
    row = tx.execute(_POSITION, {"to": site}).one_or_none()
    return Position() if row is None else Position(posted=row[0], acknowledged=row[1], received=row[2])


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to be posted. The same `id` again to the same site is the same message, whatever its body."""

    to: SiteId
    id: str
    body: bytes


def post(tx: Connection, to: SiteId, id: str, body: bytes, *, now: float) -> int:  # noqa: A002  # the wire's word
    """Put a message into the mailbox of `to`; its number. The same `id` again is the same message, whatever its body.

    After the commit the caller wakes the site's parked request. now: seconds since 1970. Raises MessageTooLong.
    """
    post_all(tx, [Letter(to, id, body)], now=now)
    return int(tx.execute(_SEQ, {"to": to, "name": id}).scalar_one())


def post_all(tx: Connection, letters: Sequence[Letter], *, now: float) -> None:
    """`post` for many, in this order: three statements, however many there are. Raises MessageTooLong."""
    for letter in letters:
        if len(letter.body) > MOST_MESSAGE:
            raise MessageTooLong(len(letter.body))
    if not letters:
        return
    everybody = [{"to": to} for to in sorted({letter.to for letter in letters})]
    tx.execute(_open(tx), everybody)
    tx.execute(_POST, [{"to": one.to, "name": one.id, "content": one.body, "now": now} for one in letters])
    tx.execute(_COUNT, everybody)


def take(tx: Connection, site: SiteId, after: int) -> tuple[Envelope, ...]:
    """The messages for `site` that follow number `after`, the oldest first, as many as fit into a reply."""
    rows = tx.execute(_TAKE, {"to": site, "after": after})
    return together([Envelope(seq=row.seq, id=row.id, body=bytes(row.body)) for row in rows])


def acknowledge(tx: Connection, site: SiteId, received: int, *, at: Position | None = None) -> None:
    """The site has handled the messages up to number `received`: their content is forgotten. An older number changes
    nothing. at: `position`, where the caller has asked for it in this transaction.

    Raises Refused where the site has handled more than was ever posted: this hub's store is older than what it has
    said.
    """
    where = at or position(tx, site)
    if received > where.posted:
        raise Refused(
            f"site `{site}` has handled message {received}, and the newest here is {where.posted}",
            do="bring the newest state of the hub's database back; an older copy cannot go on",
        )
    if received <= where.acknowledged:
        return
    tx.execute(_ACKNOWLEDGE, {"to": site, "upto": received})
    tx.execute(_FORGET, {"to": site, "upto": received})


def receive(tx: Connection, site: SiteId, message: Envelope, *, now: float, known: int | None = None) -> Receipt:
    """Count a message of `site`: NEW where its effect belongs into this transaction, SEEN where it happened before.

    known: number of the newest that was counted, where the caller has asked for it in this transaction. Raises Gap,
    SequenceReused.
    """
    known = position(tx, site).received if known is None else known
    if message.seq <= known:
        first = tx.execute(_RECEIVED, {"to": site, "number": message.seq}).scalar_one_or_none()
        if first is not None and first != message.id:
            raise SequenceReused(site, message.seq)
        return Receipt.SEEN
    if message.seq != known + 1:
        raise Gap(site, known + 1, message.seq)
    if message.seq == 1:
        tx.execute(_open(tx), {"to": site})
    tx.execute(_RECEIVE, {"to": site, "number": message.seq})
    tx.execute(_INSERT_RECEIVED, {"site": site, "seq": message.seq, "id": message.id, "at": now})
    return Receipt.NEW


def prune(tx: Connection, *, before: float) -> None:
    """Forget the ids of messages acknowledged or received before `before` (seconds since 1970).

    For a job, once a day.
    """
    tx.execute(delete(POSTED).where(POSTED.c.body.is_(None), POSTED.c.at < before))
    tx.execute(delete(RECEIVED).where(RECEIVED.c.at < before))


def _open(tx: Connection) -> Executable:
    """A mailbox for `to`, where there is none yet."""
    if tx.dialect.name not in _OPEN:
        empty = {"posted": 0, "acknowledged": 0, "received": 0}
        _OPEN[tx.dialect.name] = (
            upsert(tx, MAILBOXES).values(site=bindparam("to", type_=String(40)), **empty).on_conflict_do_nothing()
        )
    return _OPEN[tx.dialect.name]
