import asyncio
import time
from types import MappingProxyType, SimpleNamespace

import msgspec
import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, insert, select

from paroma.kernel.blocking import Inline
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire.network import HttpResponse, PeerUnavailable
from paroma.trust.channel import mailbox, outbox, tables
from paroma.trust.channel.authenticate import Unauthenticated, authenticate, refused_proof
from paroma.trust.channel.caller import Caller
from paroma.trust.channel.exchange import NOTHING, HubEnd
from paroma.trust.channel.line import MOMENT_SECONDS, Events, Line
from paroma.trust.channel.messages import EXCHANGE_PATH, TOKEN_PATH, UPLOAD_PATH, Shown, Taken
from paroma.trust.channel.parked import Parked
from paroma.trust.channel.uploads import Uploads
from paroma.trust.identity import tokens
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import Nonces
from paroma.trust.keys.signing import HeldKey

ORIGIN = "https://hub.example:8443"
SITE = "site-0000000000000001"
EFFECTS = Table("effects", MetaData(), Column("n", Integer, primary_key=True), Column("body", LargeBinary))


class QuickClock:
    """The real time, but nobody waits longer than a few ms."""

    def __init__(self, longest=0.004):
        self._longest = longest

    def now(self):
        return time.time()

    def monotonic(self):
        return time.monotonic()

    async def sleep(self, seconds):
        await asyncio.sleep(min(seconds, self._longest))


class NoHeads:
    """A site's logs that have nothing to say."""

    def ours(self, tx):
        return ("head",)

    async def theirs(self, heads):
        assert heads in {("head",), ()}


class NoHubHeads:
    """The same at the hub."""

    def changed(self, site, heads):
        assert heads == ("head",)
        return False

    def theirs(self, tx, site, heads):
        return Taken()

    def taken(self, site, heads):
        assert heads == ("head",)

    def advance(self, tx):
        return None

    def news(self, tx, site):
        return False

    def ours(self, tx, site):
        return Shown(texts=("head",))

    def sent(self, site, shown):
        return None


class Hub:
    """A hub without HTTP: what hub/api does with the room's functions, as a `Network`."""

    def __init__(self, store, folder, *, randomness):
        for metadata in (tables.HUB, EFFECTS.metadata):
            metadata.create_all(store.engine)
        self.store = store
        self.folder = folder
        self.randomness = randomness
        self.key = HeldKey.fresh(randomness)
        self.clients = {}
        self.epoch = 0
        self.refuse = None
        self.requests = []
        self.boot()

    def boot(self):
        """A new process: nothing in memory is left."""
        clock = QuickClock()
        self.nonces = Nonces(clock, self.randomness)
        self.issuer = Issuer(self.key, ORIGIN, nonces=self.nonces, clock=clock, randomness=self.randomness)
        self.verifier = tokens.Verifier(self.key.public, issuer=ORIGIN, audience=ORIGIN, epoch=self.epoch, clock=clock)
        self.parked = Parked()
        self.uploads = Uploads(self.folder, self.store, disk=SystemDisk(), blocking=Inline(), clock=clock)
        self.end = HubEnd(
            self.store,
            self.parked,
            admits=lambda _tx, _site: True,
            handle=self.handle,
            heads=NoHubHeads(),
            clock=clock,
            committed=lambda did: [self.parked.wake(to) for to in did.posted_to],
        )

    def enrol(self, site, key):
        self.clients[site] = Client(subject=site, role="site", site=site, key=key.public)

    def handle(self, tx, site, body):
        tx.execute(insert(EFFECTS).values(body=body))
        if self.refuse is not None and self.refuse(body):
            raise Refused("this is not allowed", do="ask")
        return NOTHING

    def revoke(self, site):
        del self.clients[site]
        self.epoch += 1
        self.verifier.revoked(self.epoch)
        self.parked.revoke(site)

    async def post(self, site, name, body):
        seq = await self.store.write(lambda tx: mailbox.post(tx, site, name, body, now=time.time()))
        self.parked.wake(site)
        return seq

    async def send(self, request):
        self.requests.append(request)
        path = request.url.removeprefix(ORIGIN)
        try:
            if path == TOKEN_PATH:
                return self._token(request)
            return self._reply(200, await self._answer(path, request))
        except Unauthenticated as problem:
            return self._reply(401, self._problem(problem), problem.headers())
        except BadInput as problem:
            return self._reply(400, self._problem(problem))
        except Refused as problem:
            return self._reply(403, self._problem(problem))
        except Unavailable as problem:
            return self._reply(503, self._problem(problem))

    async def _answer(self, path, request):
        who = authenticate(
            request.method, request.url, request.headers, now=time.time(), nonces=self.nonces, verified=self.verifier
        )
        if path == EXCHANGE_PATH:
            return await self.end.exchange(who.site, request.body)
        whole = path.removeprefix(UPLOAD_PATH)
        if request.method == "PUT":
            return await self.uploads.take(who.site, whole, request.body, most_total=32 << 20)
        return await self.uploads.wanted(who.site, whole)

    def _token(self, request):
        proof = dict(request.headers)["DPoP"]
        try:
            body = self.issuer.grant(request.body, proof, url=request.url, find=self.clients.get, epoch=self.epoch)
        except ParomaError as problem:
            refused = refused_proof(problem, self.nonces)
            return self._reply(400, b'{"error":"%s"}' % refused.error.encode(), refused.headers())
        return self._reply(200, body, (("cache-control", "no-store"),))

    def _problem(self, problem):
        return msgspec.json.encode({"detail": problem.message, "do": problem.do})

    def _reply(self, status, body, headers=()):
        named = {"dpop-nonce": self.nonces.current(), **dict(headers)}
        return HttpResponse(status=status, headers=MappingProxyType(named), body=body)

    def effects(self):
        return self.store.read_now(
            lambda tx: [bytes(b) for b in tx.execute(select(EFFECTS.c.body).order_by(EFFECTS.c.n)).scalars()]
        )


class Wire:
    """The network between a site and the hub; does to each exchange what `fate` says."""

    def __init__(self, hub):
        self.hub = hub
        self.fates = []
        self.replayed = []
        self.held = 0
        self.go_on = asyncio.Event()

    async def send(self, request):
        fate = self.fates.pop(0) if self.fates and request.url.endswith(EXCHANGE_PATH) else "arrives"
        if fate == "request lost":
            raise PeerUnavailable("the line broke", do="repeat")
        if fate == "held":
            self.held += 1
            await self.go_on.wait()
        if fate == "late":
            await asyncio.sleep(0.01)
        if fate == "hub restarts":
            self.hub.parked.stop()
            self.hub.boot()
        reply = await self.hub.send(request)
        if fate == "replayed":
            self.replayed.append((await self.hub.send(request)).status)
        if fate == "reply lost":
            raise PeerUnavailable("the line broke", do="repeat")
        if fate == "reply late":
            await asyncio.sleep(0.01)
        return reply


class SiteEnd:
    """A site: its store, and lines over it one after the other."""

    def __init__(self, store, wire, *, randomness, park=0.05, moment=MOMENT_SECONDS, heads=None):
        for metadata in (tables.SITE, EFFECTS.metadata):
            metadata.create_all(store.engine)
        self.store = store
        self.wire = wire
        self.randomness = randomness
        self.key = HeldKey.fresh(randomness)
        self.park = park
        self.moment = moment
        self.heads = heads or NoHeads()
        self.failures = []
        self.refused_here = []
        self.refused_there = []
        self.handler_fates = []
        self.line = None
        self.task = None

    def start(self):
        clock = QuickClock()
        self.caller = Caller(self.wire, self.key, SITE, ORIGIN, clock=clock, randomness=self.randomness)
        self.line = Line(
            self.caller,
            self.store,
            handle=self.handle,
            heads=self.heads,
            events=Events(
                reached=lambda _: None,
                failed=self.failures.append,
                refused_here=lambda arrival, _: self.refused_here.append(arrival.id),
                refused_there=self.refused_there.append,
            ),
            clock=clock,
            randomness=self.randomness,
            park=self.park,
            moment=self.moment,
        )
        self.task = asyncio.ensure_future(self.line.run())

    async def handle(self, arrival):
        fate = self.handler_fates.pop(0) if self.handler_fates else "works"
        if fate == "fails before":
            raise Unavailable("the disk is full", do="free space")
        if fate == "refuses":
            raise BadInput("no", do="no")
        await self.store.write(lambda tx: arrival.admit(tx) and tx.execute(insert(EFFECTS).values(body=arrival.body)))
        if fate == "fails after":
            raise Unavailable("the disk is full", do="free space")

    async def kill(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self):
        self.line.stop()
        await self.task

    async def send(self, name, body):
        await self.line.send(name, body)

    def effects(self):
        return self.store.read_now(
            lambda tx: [bytes(b) for b in tx.execute(select(EFFECTS.c.body).order_by(EFFECTS.c.n)).scalars()]
        )

    def position(self):
        return self.store.read_now(outbox.position)


async def until(true, *, seconds=10.0):
    """Wait until `true()`; an error after a while."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            raise AssertionError("it did not come to that")
        await asyncio.sleep(0.002)


@pytest.fixture
def pair(new_store, tmp_path):
    """Makes a hub and a site with a wire between them: `pair()`; each call a new pair."""
    count = 0

    def make(**site):
        nonlocal count
        count += 1
        hub = Hub(new_store(f"hub{count}"), tmp_path / f"uploads{count}", randomness=SeededRandomness(count, "hub"))
        wire = Wire(hub)
        end = SiteEnd(new_store(f"site{count}"), wire, randomness=SeededRandomness(count, "site"), **site)
        hub.enrol(SITE, end.key)
        return SimpleNamespace(hub=hub, wire=wire, site=end, SITE=SITE, until=until)

    return make
