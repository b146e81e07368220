"""The hub's end of all lines: take a request apart, let its messages have their effects, park it, answer.

What one request brings happens in one transaction: the numbers move if and only if the effects are kept, so a
repeated request finds its messages seen. A message whose content is refused by its handler is counted too, with its
effects undone, and the site is told why: it must not stop what follows it.

That transaction also says whether the site may talk at all, takes its logs' heads in (before its messages: a log that
is found inconsistent is marked, and nothing else of the request counts) and looks for mail. A request that brings
nothing new takes a transaction that writes nothing; so does a parked one that is woken.
"""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError, Refused
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
    Shown,
)
from paroma.trust.channel.parked import LineClosed, Parked, Place, Woken

LAZY = 16  # an acknowledgement alone is not worth a durable write; so many messages of it are


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """What follows from a change, once it is durable. posted_to: sites that have mail. seen: people see something new.
    work: something is written down that is to be done outside of a transaction.
    """

    posted_to: frozenset[SiteId] = frozenset()
    seen: bool = False
    work: bool = False

    def __or__(self, other: "Did") -> "Did":
        return Did(
            posted_to=self.posted_to | other.posted_to, seen=self.seen or other.seen, work=self.work or other.work
        )


NOTHING = Did()

Handle = Callable[[Connection, SiteId, bytes], Did]
"""The effect of a message, in the transaction that counts it. It touches nothing else: on PostgreSQL it may run again
after a conflict. Raises Refused or BadInput where the content cannot be accepted."""


class NotAdmitted(Refused):
    """The site may not talk, or its coming is still to be noted: nothing of the request was looked at."""

    def __init__(self, site: SiteId) -> None:
        super().__init__(f"site `{site}` is not let in now", do="ask the hub's operator about its status")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What one transaction made of a request. shown: None while there is nothing to say to the site."""

    admitted: bool = True
    trouble: ParomaError | None = None
    received: int = 0
    acknowledged: int = 0
    refusals: tuple[Refusal, ...] = ()
    did: Did = NOTHING
    incoming: tuple[Envelope, ...] = ()
    shown: Shown | None = None


@dataclass(slots=True)
class _Heard:
    """What the messages of one request did so far."""

    received: int
    refusals: list[Refusal] = field(default_factory=list)
    did: Did = NOTHING


class HubEnd:
    """Answers the exchanges of all sites."""

    def __init__(
        self,
        store: Store,
        parked: Parked,
        *,
        admits: Callable[[Connection, SiteId], bool],
        handle: Handle,
        heads: HubHeads,
        clock: Clock,
        committed: Callable[[Did], None],
    ) -> None:
        """admits: whether a site may talk, asked in each request's own transaction. committed: told of what a request
        did, after the commit; it wakes who has mail.
        """
        self._store = store
        self._parked = parked
        self._admits = admits
        self._handle = handle
        self._heads = heads
        self._clock = clock
        self._committed = committed

    async def exchange(
        self,
        site: SiteId,
        body: bytes,
        left: asyncio.Future[None] | None = None,
        *,
        came: Callable[[Connection], None] | None = None,
    ) -> bytes:
        """Answer one request of `site`, which is authenticated: at once, or when there is something to say.

        left: done when the site hangs up; then nothing is waited for. came: notes that the site is here, in the
        transaction of what the request brings, so that nobody sees the one without the other.

        Raises Malformed, NotAdmitted, LineClosed, SequenceReused, what the heads raise, StoreUnavailable.
        """
        asked = framing.unpack(body, Exchange, MOST_REQUEST)
        if len(asked.outgoing) > MOST_MESSAGES or not 0 <= asked.received <= asked.after or asked.wait < 0:
            raise BadInput("the request breaks the rules of the line", do="upgrade the site")
        with self._parked.enter(site) as place:  # before looking: what is posted from here on wakes it
            if left is not None:
                left.add_done_callback(lambda _: place.hang_up())
            turn = await self._turn(site, asked, came)
            incoming, shown = turn.incoming, turn.shown
            if shown is None:
                incoming, shown = await self._parked_until_news(site, asked, place)
            if place.revoked:  # nothing reaches a site that was shut off while its answer was made
                raise LineClosed
            self._heads.sent(site, shown)
            return framing.pack(
                Exchanged(
                    received=turn.received,
                    acknowledged=turn.acknowledged,
                    incoming=incoming,
                    refusals=turn.refusals,
                    heads=shown.texts,
                )
            )

    async def _turn(self, site: SiteId, asked: Exchange, came: Callable[[Connection], None] | None) -> _Turn:
        """One transaction for all that the request brings; one that only reads where it brings nothing."""
        turn = None
        if not self._heads.changed(site, asked.heads) and not asked.outgoing and came is None:
            turn = await self._store.read(lambda tx: self._only_look(tx, site, asked))
        if turn is None:
            now = self._clock.now()
            turn = await self._store.write(lambda tx: self._take(tx, site, asked, now, came))
            if turn.admitted and turn.trouble is None:
                self._heads.taken(site, asked.heads)
            if turn.did is not NOTHING:
                self._committed(turn.did)
        if not turn.admitted:
            raise NotAdmitted(site)
        if turn.trouble is not None:
            raise turn.trouble
        return turn

    def _only_look(self, tx: Connection, site: SiteId, asked: Exchange) -> _Turn | None:
        """None where something has to be written after all."""
        if not self._admits(tx, site):
            return _Turn(admitted=False)
        at = mailbox.position(tx, site)
        if not at.acknowledged <= asked.received < at.acknowledged + LAZY or asked.received > at.posted:
            return None
        incoming, shown = self._look(tx, site, asked, at_once=asked.wait == 0)
        if shown is not None and shown.due:
            return None
        return _Turn(received=at.received, acknowledged=at.acknowledged, incoming=incoming, shown=shown)

    def _take(
        self, tx: Connection, site: SiteId, asked: Exchange, now: float, came: Callable[[Connection], None] | None
    ) -> _Turn:
        """Everything that the request brings, in this order: the heads, the acknowledgement, the messages."""
        if not self._admits(tx, site):
            return _Turn(admitted=False)
        if came is not None:
            came(tx)
        heads = self._heads.theirs(tx, site, asked.heads)
        if heads.trouble is not None:
            return _Turn(trouble=heads.trouble)
        at = mailbox.position(tx, site)
        mailbox.acknowledge(tx, site, asked.received, at=at)
        heard = _Heard(at.received, did=Did(posted_to=heads.rung) if heads.rung else NOTHING)
        for message in asked.outgoing:
            if not self._hear(tx, site, message, heard, now):
                break
        if heads.cosigned or heard.did.seen:  # the offer may be done, or the log has grown; else a later look finds it
            self._heads.advance(tx)
        incoming, shown = self._look(tx, site, asked, at_once=bool(heard.refusals) or asked.wait == 0)
        return _Turn(
            received=heard.received,
            acknowledged=max(at.acknowledged, asked.received),
            refusals=tuple(heard.refusals),
            did=heard.did,
            incoming=incoming,
            shown=shown,
        )

    def _hear(self, tx: Connection, site: SiteId, message: Envelope, heard: _Heard, now: float) -> bool:
        """Count one message and let it have its effect. False: an earlier request is late or lost, nothing is counted
        from here on; `received` tells the site where to go on.
        """
        try:
            if mailbox.receive(tx, site, message, now=now, known=heard.received) is mailbox.Receipt.SEEN:
                return True
        except mailbox.Gap:
            return False
        heard.received = message.seq
        try:
            with tx.begin_nested():
                heard.did |= self._handle(tx, site, message.body)
        except (Refused, BadInput) as problem:
            heard.refusals.append(Refusal(seq=message.seq, id=message.id, message=problem.message, do=problem.do))
        return True

    def _look(
        self, tx: Connection, site: SiteId, asked: Exchange, *, at_once: bool
    ) -> tuple[tuple[Envelope, ...], Shown | None]:
        """The site's mail, with the hub's heads where there is anything to say."""
        found = mailbox.take(tx, site, asked.after)
        if found or at_once or self._heads.news(tx, site):
            return found, self._heads.ours(tx, site)
        return (), None

    async def _parked_until_news(
        self, site: SiteId, asked: Exchange, place: Place
    ) -> tuple[tuple[Envelope, ...], Shown]:
        ends = self._clock.monotonic() + min(asked.wait, PARK_SECONDS)
        while True:
            left = ends - self._clock.monotonic()
            why = await place.wait(left) if left > 0 else Woken.TIME
            if why is Woken.REVOKED:
                raise LineClosed
            if why in {Woken.SUPERSEDED, Woken.STOPPING, Woken.GONE}:
                return (), Shown(texts=())  # the site's newer request is told; or its next one, by the next process
            look = self._looking(site, asked, at_once=why is Woken.TIME)
            incoming, shown = await self._store.read(look)
            if shown is not None and shown.due:
                incoming, shown = await self._store.write(functools.partial(self._after_advance, look=look))
            if shown is not None:
                return incoming, shown

    def _looking(
        self, site: SiteId, asked: Exchange, *, at_once: bool
    ) -> Callable[[Connection], tuple[tuple[Envelope, ...], Shown | None]]:
        return lambda tx: self._look(tx, site, asked, at_once=at_once)

    def _after_advance(
        self, tx: Connection, look: Callable[[Connection], tuple[tuple[Envelope, ...], Shown | None]]
    ) -> tuple[tuple[Envelope, ...], Shown | None]:
        self._heads.advance(tx)
        return look(tx)
