"""What travels between a site and the hub: one request form, one reply form, messages inside.

Each side numbers its messages 1, 2, 3 ... and says up to which number it has durably handled the other's. So every
message is handled exactly once and in order, whatever is lost, repeated or reordered on the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.ids import SiteId

if TYPE_CHECKING:  # whoever only talks over the line, as a person's program does, has no database
    from sqlalchemy import Connection

MOST_MESSAGE: Final = 256 << 10  # bytes of one message; what is bigger goes as an upload
MOST_MESSAGES: Final = 64  # in one request or reply
MOST_TOGETHER: Final = 2 << 20  # bytes of all messages in one request or reply; one message always fits
MOST_REQUEST: Final = 3 << 20  # bytes of a whole request or reply: messages, heads, framing
PARK_SECONDS: Final = 25.0
EXCHANGE_PATH: Final = "/line/exchange"
TOKEN_PATH: Final = "/line/token"  # noqa: S105  # a path
UPLOAD_PATH: Final = "/line/uploads/"  # + hex SHA-256


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message with its place in the order of its sender."""

    seq: int  # 1 for the sender's first
    id: str  # given by the sender, unique among its messages
    body: bytes


class MessageTooLong(BadInput):
    """A message that does not fit into a request."""

    def __init__(self, length: int) -> None:
        super().__init__(
            f"the message has {length} bytes, at most {MOST_MESSAGE} fit",
            do="send its content as an upload, and name it",
        )


def together(messages: Sequence[Envelope]) -> tuple[Envelope, ...]:
    """As many of the first messages as go into one request or reply: `MOST_MESSAGES`, `MOST_TOGETHER` bytes."""
    size = 0
    for index, message in enumerate(messages[:MOST_MESSAGES]):
        size += len(message.body)
        if size > MOST_TOGETHER:
            return tuple(messages[:index])
    return tuple(messages[:MOST_MESSAGES])


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that was read and counted, but whose content the receiver refused."""

    seq: int
    id: str
    message: str
    do: str


class Exchange(msgspec.Struct, frozen=True, kw_only=True, tag="exchange", forbid_unknown_fields=True):
    """From the site."""

    received: int  # the hub's messages up to this one are durably handled: forget them
    after: int  # send only later ones; >= received, the difference lies in memory
    wait: float  # seconds the hub may hold the reply back while it has nothing to say
    outgoing: tuple[Envelope, ...]
    heads: tuple[str, ...]  # checkpoints, proofs, cosignatures: texts for trust/audit


class Exchanged(msgspec.Struct, frozen=True, kw_only=True, tag="exchanged", forbid_unknown_fields=True):
    """From the hub."""

    received: int  # the site's messages up to this one are durably handled
    acknowledged: int  # what the site itself once said to have handled: less at the site means that it was rolled back
    incoming: tuple[Envelope, ...]
    refusals: tuple[Refusal, ...]  # of messages in this request
    heads: tuple[str, ...]


class Heads(Protocol):
    """What a site tells the hub of the logs in every request, and what it does with what it is told."""

    def ours(self, tx: "Connection") -> tuple[str, ...]:
        """The texts to send along; read in the transaction in which the request's messages are."""

    async def theirs(self, heads: tuple[str, ...]) -> None:
        """Take the other's texts, before any message of the same reply is handled.

        Raises Refused where they contradict what was seen before: the line then stops.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a site's heads did at the hub. rung: sites that have mail by it. cosigned: a cosignature is new. trouble: to
    be raised after the commit.
    """

    rung: frozenset[SiteId] = frozenset()
    cosigned: bool = False
    trouble: ParomaError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The hub's texts for one site. seen: size of the site's log in them. due: they should move first, by `advance`."""

    texts: tuple[str, ...]
    seen: int = 0
    due: bool = False


class HubHeads(Protocol):
    """The same at the hub, for each site: everything but `changed` and `sent` within the caller's transaction."""

    def changed(self, site: SiteId, heads: tuple[str, ...]) -> bool:
        """Whether the texts of `site` say anything that was not taken in yet. Raises the forms' errors."""

    def theirs(self, tx: "Connection", site: SiteId, heads: tuple[str, ...]) -> Taken:
        """Take the texts of `site` in, before its messages."""

    def taken(self, site: SiteId, heads: tuple[str, ...]) -> None:
        """They are durably taken in."""

    def advance(self, tx: "Connection") -> None:
        """Show everybody the newest head from here on, where the last one is done."""

    def news(self, tx: "Connection", site: SiteId) -> bool:
        """Whether the site should be told at once: its request is then not parked."""

    def ours(self, tx: "Connection", site: SiteId) -> Shown:
        """The texts for `site`. Writes nothing."""

    def sent(self, site: SiteId, shown: Shown) -> None:
        """These leave now."""
