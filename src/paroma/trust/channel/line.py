"""The site's end of its line: durable messages out, durable effects in, over requests that only ever go outward.

There is always one request at the hub, parked there for up to 25 s, and a second one when something new is to be sent
(the hub then releases the first). Messages are numbered in the site's store; whatever is lost, cut, repeated or
reordered, each has its effect once, in order. Rules kept:

- a message leaves only after the transaction that sent it is durable (`outbox.send`), and is sent until the hub has
counted it; - a message of the hub is handled after all before it, and again after a crash unless its effect is
durable (`Arrival.admit`); - the hub's log heads are looked at before any message that came with them.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import Store
from paroma.kernel.wire import framing
from paroma.trust.channel import outbox
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.channel.messages import (
    EXCHANGE_PATH,
    MOST_REQUEST,
    PARK_SECONDS,
    Envelope,
    Exchange,
    Exchanged,
    Heads,
    Refusal,
)

MOST_LIVE: Final = 2  # requests at the hub at once
MOST_WAITING: Final = 256  # messages of the hub in memory; the line asks for no more until they are handled
SLACK_SECONDS: Final = 10.0  # beyond the parked time, until a request counts as lost
MOMENT_SECONDS: Final = 0.03  # after messages came: what they make the site send travels with the next request
FIRST_DELAY: Final = 0.1  # seconds; doubled at every failure in a row
MOST_DELAY: Final = 5.0  # well below the grace: a site must come back within it


class LineBroken(ParomaError):
    """Hub and site contradict each other about the past.

    Nothing more is sent or handled until somebody has looked.
    """


@dataclass(slots=True, kw_only=True)
class Arrival:
    """A message of the hub, handed to the site's handler."""

    seq: int
    id: str
    body: bytes
    admitted: bool = False

    def admit(self, tx: Connection) -> bool:
        """In the transaction of the message's effect:

        whether the effect is to happen. False: it happened before a crash.
        """
        first = outbox.admit(tx, self.seq)
        self.admitted = True
        return first


Handle = Callable[[Arrival], Awaitable[None]]
"""Handles one message: makes its effect in a transaction that begins with `arrival.admit(tx)`, and returns soon (long
work is only started), after that transaction is durable. Without an effect of its own it need not admit. Refused,
BadInput: the content is not taken, and no transaction that admitted it was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What the program wants to know of its line; each is called in the loop and must not wait."""

    reached: Callable[[float], None]  # the hub answered, at this time (seconds since 1970)
    failed: Callable[[ParomaError], None]  # a request failed; it is repeated after a while
    refused_here: Callable[[Arrival, ParomaError], None]  # this site refused the content of a message
    refused_there: Callable[[Refusal], None]  # the hub refused the content of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request on its way: what it carries, and what was known when it left."""

    last: int  # number of the newest message it carries, 0 for none
    acknowledged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToSend:
    """What the next request carries. more: the outbox holds more than fits."""

    outgoing: tuple[Envelope, ...]
    more: bool
    heads: tuple[str, ...]


class Line:
    """One site's line. `run` until `stop`; `wake` after each commit that sent something."""

    def __init__(
        self,
        caller: Caller,
        store: Store,
        *,
        handle: Handle,
        heads: Heads,
        events: Events,
        clock: Clock,
        randomness: Randomness,
        park: float = PARK_SECONDS,
        moment: float = MOMENT_SECONDS,
    ) -> None:
        """park: seconds that an empty request may wait at the hub. moment: seconds that it waits here after messages came."""
        self._caller = caller
        self._store = store
        self._handle = handle
        self._heads = heads
        self._events = events
        self._clock = clock
        self._randomness = randomness
        self._park = park
        self._pause = moment
        self._live: dict[asyncio.Task[Exchanged], _Request] = {}
        self._inbox: deque[Envelope] = deque()
        self._news = asyncio.Event()  # something may have to be done by `_talk`
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._look = True  # the outbox may hold what no live request carries
        self._moment = 0.0  # until then (monotonic) an empty request waits for what there may be to send
        self._sent = 0  # own messages up to here are known to be in the store
        self._taken = 0  # messages of the hub up to here are in memory or handled
        self._received = 0  # ... are durably handled
        self._acknowledged = 0  # own messages up to here are handled by the hub
        self._written = 0  # ... as far as the store knows
        self._failures = 0

    def wake(self) -> None:
        """Something was sent: a transaction with `outbox.send` is durable."""
        self._look = True
        self._news.set()

    async def send(self, id: str, body: bytes) -> None:  # noqa: A002  # the wire's word
        """Send a message that belongs to no other change of the store.

        Durable when this returns. Raises MessageTooLong.
        """
        now = self._clock.now()
        await self._store.write(lambda tx: outbox.send(tx, id, body, now=now))
        self.wake()

    def stop(self) -> None:
        """Let `run` return, within a second:

        requests and handlers under way are cut; they are repeated after the next start.
        """
        self._stopping.set()

    async def run(self) -> None:
        """Talk with the hub until `stop`.

        Raises LineBroken, and what a handler raises beyond Refused, BadInput, Unavailable.
        """
        start = await self._store.read(outbox.position)
        self._taken = self._received = start.received
        self._acknowledged = self._written = start.acknowledged
        self._sent = start.sent
        parts = [asyncio.ensure_future(part) for part in (self._talk(), self._handle_all(), self._stopping.wait())]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in [*parts, *self._live]:
                part.cancel()
            outcomes = await asyncio.gather(*parts, return_exceptions=True)
            await asyncio.gather(*self._live, return_exceptions=True)
            self._live.clear()
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    # -- out

    async def _talk(self) -> None:
        while True:
            self._news.clear()
            try:
                wait = await self._dispatch()
            except Unavailable as problem:  # the database cannot be read just now: nothing left it, so nothing is lost
                await self._wait_after(problem)
                continue
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait({news, *self._live}, return_when=asyncio.FIRST_COMPLETED, timeout=wait)
            finally:
                news.cancel()
            for task in [task for task in self._live if task.done()]:
                await self._finish(task, self._live.pop(task))

    async def _dispatch(self) -> float | None:
        """Put as many requests on their way as are useful now. Seconds after which an empty one is to leave, if any."""
        while len(self._live) < MOST_LIVE and len(self._inbox) < MOST_WAITING:
            left = self._moment - self._clock.monotonic()
            if left > 0 and self._inbox:
                return left  # the next message may have an answer, too
            if not self._look and (self._live or left > 0):
                return left if left > 0 and not self._live else None
            after = max([self._acknowledged, *(request.last for request in self._live.values())])
            look, self._look = self._look, False  # before reading: what is sent meanwhile sets it again
            empty = not self._live and left <= 0
            found = await self._store.read(functools.partial(self._to_send, look=look, after=after, empty=empty))
            self._look = found.more or self._look
            if not found.outgoing and not empty:
                continue
            last = found.outgoing[-1].seq if found.outgoing else 0
            self._sent = max(self._sent, last)
            request = _Request(last=last, acknowledged=self._acknowledged)
            self._live[asyncio.ensure_future(self._request(found))] = request
            self._moment = 0.0
        return None

    def _to_send(self, tx: Connection, *, look: bool, after: int, empty: bool) -> "_ToSend":
        """empty: a request without messages is to leave, too. Only heads that leave may be asked for."""
        outgoing, more = outbox.waiting(tx, after=after) if look else ((), False)
        return _ToSend(outgoing=outgoing, more=more, heads=self._heads.ours(tx) if outgoing or empty else ())

    async def _request(self, found: "_ToSend") -> Exchanged:
        asked = Exchange(
            received=self._received,
            after=self._taken,
            wait=self._park,
            outgoing=found.outgoing,
            heads=found.heads,
        )
        reply = await self._caller.call("POST", EXCHANGE_PATH, framing.pack(asked), wait=self._park + SLACK_SECONDS)
        if reply.status != 200:
            raise refused_by(reply)
        return framing.unpack(reply.body, Exchanged, MOST_REQUEST)

    async def _finish(self, task: asyncio.Task[Exchanged], request: _Request) -> None:
        """Take in what came back, or wait a while after a failure."""
        try:
            reply = task.result()
            await self._take(reply, request)
        except (Unavailable, BadInput, Refused) as problem:  # NotLetIn too: the site may be let in again
            await self._wait_after(problem)
        else:
            self._failures = 0
            if self._inbox:
                self._moment = self._clock.monotonic() + self._pause

    async def _take(self, reply: Exchanged, request: _Request) -> None:
        self._events.reached(self._clock.now())
        if await self._knows_more(reply):
            raise LineBroken(
                "the hub knows messages of this site that its own database does not: the database is an older copy",
                do="bring the newest state of the site's database back; an older copy cannot take part",
            )
        if reply.received < request.acknowledged:
            raise LineBroken(
                "the hub has forgotten messages that it had counted: its database is an older copy",
                do="tell the hub's operator; the site goes on by itself once the newest state is back",
            )
        try:
            await self._heads.theirs(reply.heads)
        except Refused as problem:
            raise LineBroken(problem.message, do=problem.do) from problem
        await self._acknowledge(reply, request)
        for refusal in reply.refusals:
            self._events.refused_there(refusal)
        for message in reply.incoming:
            if message.seq == self._taken + 1:  # earlier ones came with another reply; a gap comes again
                self._taken = message.seq
                self._inbox.append(message)
        if self._inbox:
            self._arrived.set()

    async def _knows_more(self, reply: Exchanged) -> bool:
        """Whether the hub knows of messages that this site's store does not."""
        if reply.received <= self._sent and reply.acknowledged <= self._received:
            return False
        at = await self._store.read(outbox.position)
        self._sent = max(self._sent, at.sent)
        return reply.received > at.sent or reply.acknowledged > at.received

    async def _acknowledge(self, reply: Exchanged, request: _Request) -> None:
        self._acknowledged = max(self._acknowledged, reply.received)
        if request.last > reply.received:  # it was carried and not counted: something before it is late
            self._look = True
        quiet = not reply.incoming and not self._live
        if self._acknowledged > self._written and (quiet or self._acknowledged >= self._written + MOST_WAITING // 4):
            # not at once: what is sent again after a crash is seen as such by the hub
            upto = self._acknowledged
            await self._store.write(lambda tx: outbox.acknowledge(tx, upto))
            self._written = upto

    async def _wait_after(self, problem: ParomaError) -> None:
        self._look = True  # whatever the lost request carried is sent again
        self._events.failed(problem)
        self._failures += 1
        longest = min(MOST_DELAY, FIRST_DELAY * 2 ** min(self._failures, 16))
        share = int.from_bytes(self._randomness.take(4), "big") / 2**32
        await self._clock.sleep(longest * (0.25 + 0.75 * share))

    # -- in

    async def _handle_all(self) -> None:
        while True:
            if not self._inbox:
                self._news.set()
                self._arrived.clear()
                await self._arrived.wait()
            message = self._inbox[0]
            await self._handle_one(Arrival(seq=message.seq, id=message.id, body=message.body))
            self._inbox.popleft()
            self._received = message.seq
            if len(self._inbox) == MOST_WAITING - 1:
                self._news.set()

    async def _handle_one(self, arrival: Arrival) -> None:
        failures = 0
        while True:
            try:
                await self._try_once(arrival)
            except Unavailable as problem:
                self._events.failed(problem)
                await self._clock.sleep(min(MOST_DELAY, FIRST_DELAY * 2 ** min(failures, 16)))
                failures += 1
            else:
                return

    async def _try_once(self, arrival: Arrival) -> None:
        arrival.admitted = False
        try:
            await self._handle(arrival)
        except (Refused, BadInput) as problem:
            self._events.refused_here(arrival, problem)
        else:
            if arrival.admitted:
                return
        if (await self._store.read(outbox.position)).received < arrival.seq:
            await self._store.write(
                arrival.admit
            )  # it had no effect in the store, or was refused: it is done all the same
