"""Puts a hub together from its settings: keys, store, log, line, runs. `open_hub` is the only maker.

Clock, randomness, disk and blocking come in, so that the simulation runs this very code. The hub keeps nothing in its process
that the database does not hold, but the nonces of this boot and the parked requests.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, bindparam, select

from paroma.data.catalogue.data_set import Offered
from paroma.hub import proposals, reports, tables
from paroma.hub.apps import Apps
from paroma.hub.gate import Gate
from paroma.hub.lifecycle import OUT, Lifecycle
from paroma.hub.presence import Presence
from paroma.hub.proposals import Post
from paroma.hub.runs import Runs
from paroma.hub.settings import HubSettings
from paroma.kernel.blocking import Blocking
from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, Unavailable
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.kernel.store import migrations, tables as store_tables
from paroma.kernel.store.database import Store, open_store
from paroma.kernel.wire import framing
from paroma.kernel.wire.network import Network, close
from paroma.learn.runs.messages import FromSite
from paroma.learn.sandbox.task import Workers
from paroma.trust.audit import log as logs, tables as audit_tables, witness
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner, NoteKey
from paroma.trust.channel import tables as channel_tables
from paroma.trust.channel.exchange import NOTHING, Did, HubEnd
from paroma.trust.channel.heads import AtHub
from paroma.trust.channel.messages import MOST_MESSAGE
from paroma.trust.channel.parked import Parked
from paroma.trust.channel.uploads import Uploads
from paroma.trust.federation import members, tables as federation_tables
from paroma.trust.federation.messages import OfficerNamed
from paroma.trust.federation.tables import MEMBERS
from paroma.trust.identity import epoch, people, tables as identity_tables
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import Nonces
from paroma.trust.identity.oidc import Provider, open_provider
from paroma.trust.identity.tokens import Verifier
from paroma.trust.keys.files import load_or_create_log_key
from paroma.trust.keys.named import Homes, of_program
from paroma.trust.keys.signing import SigningKey
from paroma.trust.permit.messages import PermitEnded, PermitRefused, PermitSigned
from paroma.trust.policy import tables as policy_tables
from paroma.trust.policy.desk import open_desk
from paroma.trust.policy.facts import Exchange

METADATAS: tuple[MetaData, ...] = (
    store_tables.METADATA,
    audit_tables.METADATA,
    identity_tables.METADATA,
    federation_tables.METADATA,
    policy_tables.METADATA,
    channel_tables.HUB,
    tables.METADATA,
)
"""All tables of a hub."""

VERSIONS = Path(__file__).with_name("versions")
TICK_SECONDS = 0.5
# asked at each request
_STANDING = select(MEMBERS.c.status, MEMBERS.c.log_vkey).where(MEMBERS.c.site == bindparam("site"))
KEEP_SECONDS = 5.0  # s between two writings of what was decided
FromMember = FromSite | Offered | OfficerNamed | PermitSigned | PermitRefused | PermitEnded


@dataclass(slots=True, kw_only=True)
class Ports:
    """What the world gives to a program."""

    clock: Clock
    randomness: Randomness
    disk: Disk
    blocking: Blocking
    workers: Workers
    network: Network | None = None  # to the provider of logins, where one is set


@dataclass(slots=True, kw_only=True)
class Hub:
    """A hub, put together."""

    settings: HubSettings
    ports: Ports
    store: Store
    key: SigningKey
    signer: CheckpointSigner
    log: Journal
    nonces: Nonces
    issuer: Issuer
    verifier: Verifier
    parked: Parked
    heads: AtHub
    line: HubEnd
    uploads: Uploads
    runs: Runs
    apps: Apps
    post: Post
    gate: Gate
    lifecycle: Lifecycle
    presence: Presence
    provider: Provider | None  # at which people sign in
    standings: dict[
        SiteId, "SiteStanding"
    ]  # with which policy let a site in; compared with the store's at each request
    authority: bytes  # PEM of the certificate authority that members pin
    jobs: list[asyncio.Task[None]]

    def find(self, tx: Connection, name: str) -> Client | None:
        """Who may have a token: a member site or a person."""
        return members.find_client(tx, name) if name.startswith("site-") else people.find_client(tx, name)

    def ring(self, sites: set[SiteId]) -> None:
        """Wake the parked requests of these sites, and people who wait, after a commit of something that people see."""
        self.after(Did(posted_to=frozenset(sites), seen=True))

    def after(self, did: Did) -> None:
        """What follows from a change that is durable now: ring, tell, and begin what is to be done."""
        for site in did.posted_to:
            self.parked.wake(site)
        if did.seen:
            self.runs.tell()
        if did.work:
            task = asyncio.get_running_loop().create_task(self._work())
            self.jobs.append(task)
            task.add_done_callback(self.jobs.remove)

    async def start(self) -> None:
        """Take up what a restart left, and begin to tick."""
        found = await self.store.read(members.members)
        self.presence.expect(m.site for m in found if m.status == "online")
        await self.catch_up()
        await self.apps.start()
        await self._work()
        self.jobs.append(asyncio.get_running_loop().create_task(self._tick()))

    async def stop(self) -> None:
        """Answer the parked requests and end the jobs."""
        self.parked.stop()
        for job in self.jobs:
            job.cancel()
        for job in self.jobs:
            with contextlib.suppress(asyncio.CancelledError):
                await job
        with contextlib.suppress(Unavailable):  # it is kept for explanations only; the log has it
            await self.gate.desk.keep(self.store)
        await self.apps.stop()
        await self.runs.close()
        if self.ports.network is not None:
            await close(self.ports.network)

    async def catch_up(self) -> None:
        """Whoever was shut off is out: tokens of before are refused, requests that are open are cut, all mail is looked at."""
        now, found = await self.store.read(lambda tx: (epoch.current(tx), members.members(tx)))
        self.verifier.revoked(now)
        for member in found:
            if member.status in OUT:
                self.parked.revoke(member.site)
                self.presence.forget(member.site)
            else:
                self.parked.admit(member.site)
        self.ring(set(self.parked.sites()))
        self.runs.tell()  # requests of people that wait look whether they may

    async def up_to_date(self) -> None:
        """`catch_up`, where somebody was shut off or let in by another program than this."""
        if await self.store.read(epoch.current) != self.verifier.epoch:
            await self.catch_up()

    async def arrived(self, site: SiteId) -> None:
        """A request of a site that the store does not know as online."""
        await self.store.write(lambda tx: self.lifecycle.back(tx, site))
        self.presence.expect([site])

    async def notice(self) -> None:
        """What nobody's request tells: sites that fell silent, and what a command at this machine wrote into the store."""
        await self.up_to_date()
        for site, seconds in self.presence.silent():
            self.presence.forget(site)
            self.ring(await self.store.write(lambda tx, s=site, n=seconds: self.lifecycle.silent(tx, s, n)))  # type: ignore[misc]
            if self.presence.seen(site) == 0.0:  # it came back at this very moment, and was taken for online
                await self.arrived(site)

    async def _tick(self) -> None:
        while True:
            await self.ports.clock.sleep(TICK_SECONDS)
            try:
                await self.notice()
                await self.gate.desk.keep(self.store, every=KEEP_SECONDS)
                await self.runs.tick()
                await self._work()
                await self.heads.advance_all()
            except Unavailable:
                continue  # the database cannot be reached just now; nothing is lost, the next tick does it

    async def _work(self) -> None:
        self.apps.work(await self.runs.work())


def origin_of(settings: HubSettings) -> str:
    """The name of the federation log: fixed for its life."""
    return settings.url.removeprefix("https://").replace("+", "-") + "/federation"


def open_hub(settings: HubSettings, ports: Ports, *, authority: bytes) -> Hub:
    """Put a hub together. authority: PEM of its certificate authority. Raises StoreUnsafe, StoreUnavailable, LogDamaged."""
    store = open_store(settings.database, ports.blocking, ports.disk)
    migrations.upgrade(store, VERSIONS)
    folder = settings.folder
    homes = Homes.of_this_machine(ports.disk, ports.randomness)
    key = of_program(settings.signing_key, folder / "keys" / "hub.pem", homes)
    log_key = load_or_create_log_key(folder / "keys" / "log.pem", ports.disk, ports.randomness)
    signer = CheckpointSigner(origin_of(settings), log_key)
    log = Journal(name=logs.FEDERATION, signer=signer, clock=ports.clock)
    parked = Parked()
    uploads = Uploads(Path(folder / "uploads"), store, disk=ports.disk, blocking=ports.blocking, clock=ports.clock)
    nonces = Nonces(ports.clock, ports.randomness)
    runs = Runs(
        store,
        log=log,
        uploads=uploads,
        blocking=ports.blocking,
        clock=ports.clock,
        randomness=ports.randomness,
        patience=settings.patience_seconds,
        after=lambda did: hub.after(did),
    )
    post = Post(clock=ports.clock)
    epoch_now = store.read_now(epoch.current)
    heads = AtHub(
        store,
        key_of=_log_key_of,
        quorum=reports.quorum_of,
        covered=runs.release,
        clock=ports.clock,
        wake=parked.wake,
    )

    def handle(tx: Connection, site: SiteId, body: bytes) -> Did:
        return _hear(tx, site, body, hub)

    apps = Apps(runs, store, ports.workers, lambda did: hub.after(did))
    gate = Gate(desk=open_desk(store, ports.clock), log=log, store=store)
    hub = Hub(
        settings=settings,
        ports=ports,
        store=store,
        key=key,
        signer=signer,
        log=log,
        nonces=nonces,
        issuer=Issuer(key, settings.url, nonces=nonces, clock=ports.clock, randomness=ports.randomness),
        verifier=Verifier(key.public, issuer=settings.url, audience=settings.url, epoch=epoch_now, clock=ports.clock),
        parked=parked,
        heads=heads,
        line=HubEnd(
            store,
            parked,
            admits=lambda tx, site: standing_of(tx, site) == hub.standings.get(site),
            handle=handle,
            heads=heads,
            clock=ports.clock,
            committed=lambda did: hub.after(did),
        ),
        uploads=uploads,
        runs=runs,
        apps=apps,
        post=post,
        gate=gate,
        lifecycle=Lifecycle(log=log, runs=runs, post=post, clock=ports.clock),
        presence=Presence(ports.clock, grace=settings.offline_seconds),
        provider=open_provider(
            settings.login,
            ports.network,
            settings.folder,
            disk=ports.disk,
            clock=ports.clock,
            randomness=ports.randomness,
        ),
        standings={},
        authority=authority,
        jobs=[],
    )
    store.write_now(lambda tx: logs.begin(tx, logs.FEDERATION, signer))
    return hub


def _log_key_of(tx: Connection, site: SiteId) -> NoteKey:
    row = tx.execute(_STANDING, {"site": site}).one_or_none()
    if row is None:
        raise members.MemberUnknown(site)
    return NoteKey.parse(row.log_vkey)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStanding:
    """How a member stands, for the decision whether it may talk."""

    status: members.Status
    log: str  # consistent, inconsistent

    def facts(self) -> Exchange:
        """For policy."""
        return Exchange(proven=True, member=self.status, log=self.log)


def standing_of(tx: Connection, site: SiteId) -> SiteStanding:
    """How `site` stands now. Raises MemberUnknown."""
    row = tx.execute(_STANDING, {"site": site}).one_or_none()
    if row is None:
        raise members.MemberUnknown(site)
    broken = witness.trouble(tx, NoteKey.parse(row.log_vkey).name)
    return SiteStanding(status=row.status, log="inconsistent" if broken else "consistent")


def _hear(tx: Connection, site: SiteId, body: bytes, hub: Hub) -> Did:
    """A member's message: to whom it belongs. Raises Refused, BadInput."""
    message = framing.unpack(body, FromMember, MOST_MESSAGE)
    match message:
        case Offered():
            proposals.offer(tx, site, message, hub.ports.clock.now())
            hub.log.write(
                tx, "data-set-offered", site=site, data_set=message.data_set.id, digest=message.data_set.digest()
            )
            return NOTHING
        case OfficerNamed():
            officer = members.take_enrolment(tx, message.statement)
            if officer.site != site:
                raise BadInput("a site names the officer of another", do="name your own")
            rung = hub.lifecycle.officer_named(tx, message.statement, officer)
            return Did(posted_to=frozenset(rung), seen=bool(rung))
        case PermitSigned():
            rung = proposals.sign(tx, site, message, log=hub.log, post=hub.post)
            return Did(posted_to=frozenset(rung), seen=True)
        case PermitRefused():
            rung = proposals.refuse(tx, site, message, log=hub.log, post=hub.post)
            return Did(posted_to=frozenset(rung), seen=True)
        case PermitEnded():
            return Did(posted_to=frozenset(hub.lifecycle.permit_left(tx, site, message)), seen=True)
        case _:
            return hub.runs.hear(tx, site, message)
