"""The site's durable side of its line: what it has still to send, and how far it has heard the hub.

`send` belongs into the transaction whose change the message tells of; `admit` into the one with the effect of a
message.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from paroma.kernel.errors import Refused
from paroma.kernel.store.database import upsert
from paroma.trust.channel.messages import MOST_MESSAGE, MOST_MESSAGES, Envelope, MessageTooLong, together
from paroma.trust.channel.tables import LINE, OUTBOX

# statements of the hot path, built once: building them costs more than running them
_POSITION = select(LINE)
_KNOWN = select(OUTBOX.c.seq).where(OUTBOX.c.id == bindparam("name"))
_COUNT_SENT = update(LINE).values(sent=LINE.c.sent + 1).returning(LINE.c.sent)
_COUNT_RECEIVED = update(LINE).where(LINE.c.received == bindparam("before")).values(received=bindparam("to"))
_INSERT = insert(OUTBOX)
_WAITING = (
    select(OUTBOX.c.seq, OUTBOX.c.id, OUTBOX.c.body)
    .where(OUTBOX.c.seq > bindparam("after"), OUTBOX.c.body.is_not(None))
    .order_by(OUTBOX.c.seq)
    .limit(MOST_MESSAGES + 1)
)


class OutOfOrder(Refused):
    """A message is to take effect before the one that it follows:

    the handler is wrong, or two lines run on one store.
    """

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(
            f"message {got} cannot be handled before message {expected}", do="run one site on this database"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Numbers of messages, 0 for none."""

    sent: int = 0
    acknowledged: int = 0
    received: int = 0


def position(tx: Connection) -> Position:
    """How far this site is with the hub."""
    row = tx.execute(_POSITION).mappings().one_or_none()
    if row is None:
        return Position()
    return Position(sent=row["sent"], acknowledged=row["acknowledged"], received=row["received"])


def send(tx: Connection, id: str, body: bytes, *, now: float) -> int:  # noqa: A002  # the wire's word
    """Put a message into the outbox; its number. The same `id` again is the same message: the bytes that were kept
    first.

    After the commit the caller calls `Line.wake`. now: seconds since 1970. Raises MessageTooLong.
    """
    if len(body) > MOST_MESSAGE:
        raise MessageTooLong(len(body))
    known = tx.execute(_KNOWN, {"name": id}).scalar_one_or_none()
    if known is not None:
        return int(known)
    seq = tx.execute(_COUNT_SENT).scalar_one_or_none()
    if seq is None:  # the first of all
        _open(tx)
        seq = tx.execute(_COUNT_SENT).scalar_one()
    tx.execute(_INSERT, {"seq": seq, "id": id, "body": body, "at": now})
    return int(seq)


def waiting(tx: Connection, *, after: int) -> tuple[tuple[Envelope, ...], bool]:
    """The messages after number `after`, the oldest first, as many as go into a request; and whether there are more."""
    rows = tx.execute(_WAITING, {"after": after})
    found = [Envelope(seq=row.seq, id=row.id, body=bytes(row.body)) for row in rows]
    fitting = together(found)
    return fitting, len(fitting) < len(found)


def acknowledge(tx: Connection, received: int) -> None:
    """The hub has handled the messages up to number `received`: their content is forgotten."""
    tx.execute(update(LINE).where(LINE.c.acknowledged < received).values(acknowledged=received))
    tx.execute(update(OUTBOX).where(OUTBOX.c.seq <= received, OUTBOX.c.body.is_not(None)).values(body=None))


def admit(tx: Connection, seq: int) -> bool:
    """Whether message `seq` of the hub is to take effect now; False: it did before. Raises OutOfOrder."""
    counted = {"before": seq - 1, "to": seq}
    if tx.execute(_COUNT_RECEIVED, counted).rowcount:  # nearly always
        return True
    known = position(tx).received
    if seq <= known:
        return False
    if seq != known + 1:
        raise OutOfOrder(known + 1, seq)
    _open(tx)  # the first of all
    tx.execute(_COUNT_RECEIVED, counted)
    return True


def prune(tx: Connection, *, before: float) -> None:
    """Forget the ids of messages that were acknowledged and sent before `before` (seconds since 1970)."""
    tx.execute(delete(OUTBOX).where(OUTBOX.c.body.is_(None), OUTBOX.c.at < before))


def _open(tx: Connection) -> None:
    tx.execute(upsert(tx, LINE).values(one=1, sent=0, acknowledged=0, received=0).on_conflict_do_nothing())
