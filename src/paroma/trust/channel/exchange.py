"""The hub's end of all lines: take a request apart, let its messages have their effects, park it, answer.

What one request brings happens in one transaction: the numbers move if and only if the effects are kept, so a
repeated request finds its messages seen. A message whose content is refused by its handler is counted too, with its
effects undone, and the site is told why: it must not stop what follows it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.store.database import Store
from paroma.kernel.wire import framing
from paroma.trust.channel import mailbox
from paroma.trust.channel.messages import (
    MOST_MESSAGES,
    MOST_REQUEST,
    PARK_SECONDS,
    Envelope,
    Exchange,
    Exchanged,
    HubHeads,
    Refusal,
)
from paroma.trust.channel.parked import LineClosed, Parked, Place, Woken

Handle = Callable[[Connection, SiteId, bytes], Collection[SiteId]]
"""The effect of a message, in the transaction that counts it; the sites whose mailboxes it posted to. It touches
nothing else: on PostgreSQL it may run again after a conflict. Raises Refused or BadInput where the content cannot be
accepted."""

LAZY = 16  # an acknowledgement alone is not worth a durable write; so many messages of it are


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a request's messages did."""

    received: int
    acknowledged: int
    refusals: tuple[Refusal, ...]
    posted_to: tuple[SiteId, ...]
    new: int


class HubEnd:
    """Answers the exchanges of all sites.

    `committed` is told of every site whose messages had new effects, after the commit.
    """

    def __init__(
        self,
        store: Store,
        parked: Parked,
        *,
        handle: Handle,
        heads: HubHeads,
        clock: Clock,
        committed: Callable[[SiteId], None],
    ) -> None:
        self._store = store
        self._parked = parked
        self._handle = handle
        self._heads = heads
        self._clock = clock
        self._committed = committed

    async def exchange(self, site: SiteId, body: bytes) -> bytes:
        """Answer one request of `site`, which is authenticated: at once, or when there is something to say.

        Raises Malformed, LineClosed, SequenceReused, what the heads raise, StoreUnavailable.
        """
        asked = framing.unpack(body, Exchange, MOST_REQUEST)
        if len(asked.outgoing) > MOST_MESSAGES or not 0 <= asked.received <= asked.after or asked.wait < 0:
            raise BadInput("the request breaks the rules of the line", do="upgrade the site")
        with self._parked.enter(site) as place:
            await self._heads.theirs(site, asked.heads)
            heard = await self._hear(site, asked)
            for to in heard.posted_to:
                self._parked.wake(to)
            if heard.new:
                self._committed(site)
            at_once = bool(heard.refusals) or await self._heads.news(site)
            incoming = await self._next(site, asked, place, at_once=at_once)
            answer = Exchanged(
                received=heard.received,
                acknowledged=heard.acknowledged,
                incoming=incoming,
                refusals=heard.refusals,
                heads=await self._heads.ours(site),
            )
            if place.revoked:  # nothing reaches a site that was shut off while its answer was made
                raise LineClosed
            return framing.pack(answer)

    async def _hear(self, site: SiteId, asked: Exchange) -> _Heard:
        if not asked.outgoing:
            at = await self._store.read(lambda tx: mailbox.position(tx, site))
            if at.acknowledged <= asked.received < at.acknowledged + LAZY and asked.received <= at.posted:
                return _Heard(received=at.received, acknowledged=at.acknowledged, refusals=(), posted_to=(), new=0)
        now = self._clock.now()
        return await self._store.write(lambda tx: self._effects(tx, site, asked, now))

    def _effects(self, tx: Connection, site: SiteId, asked: Exchange, now: float) -> _Heard:
        mailbox.acknowledge(tx, site, asked.received)
        refusals: list[Refusal] = []
        posted_to: set[SiteId] = set()
        new = 0
        for message in asked.outgoing:
            try:
                if mailbox.receive(tx, site, message, now=now) is mailbox.Receipt.SEEN:
                    continue
            except mailbox.Gap:  # an earlier request is late or lost: `received` tells the site where to go on
                break
            new += 1
            try:
                with tx.begin_nested():
                    posted_to.update(self._handle(tx, site, message.body))
            except (Refused, BadInput) as problem:
                refusals.append(Refusal(seq=message.seq, id=message.id, message=problem.message, do=problem.do))
        at = mailbox.position(tx, site)
        return _Heard(
            received=at.received,
            acknowledged=at.acknowledged,
            refusals=tuple(refusals),
            posted_to=tuple(sorted(posted_to)),
            new=new,
        )

    async def _next(self, site: SiteId, asked: Exchange, place: Place, *, at_once: bool) -> tuple[Envelope, ...]:
        ends = self._clock.monotonic() + (0.0 if at_once else min(asked.wait, PARK_SECONDS))
        while True:
            found = await self._store.read(lambda tx: mailbox.take(tx, site, asked.after))
            left = ends - self._clock.monotonic()
            if found or left <= 0:
                return found
            why = await place.wait(left)
            if why is Woken.REVOKED:
                raise LineClosed
            if why is not Woken.MESSAGE or await self._heads.news(site):
                return ()
