"""Puts a hub together from its settings: keys, store, log, line, runs. `open_hub` is the only maker.

Clock, randomness, disk and blocking come in, so that the simulation runs this very code. The hub keeps nothing in its process
that the database does not hold, but the nonces of this boot and the parked requests.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData

from paroma.data.catalogue.data_set import Offered
from paroma.hub import proposals, reports, tables
from paroma.hub.apps import Apps
from paroma.hub.gate import Gate
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
from paroma.learn.runs.messages import FromSite
from paroma.learn.sandbox.task import Workers
from paroma.trust.audit import log as logs, tables as audit_tables
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner, NoteKey
from paroma.trust.channel import tables as channel_tables
from paroma.trust.channel.exchange import HubEnd
from paroma.trust.channel.heads import AtHub
from paroma.trust.channel.messages import MOST_MESSAGE
from paroma.trust.channel.parked import Parked
from paroma.trust.channel.uploads import Uploads
from paroma.trust.federation import members, tables as federation_tables
from paroma.trust.federation.messages import OfficerNamed
from paroma.trust.identity import epoch, people, tables as identity_tables
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import Nonces
from paroma.trust.identity.tokens import Verifier
from paroma.trust.keys.files import load_or_create, load_or_create_log_key
from paroma.trust.keys.signing import HeldKey
from paroma.trust.permit.messages import PermitRefused, PermitSigned
from paroma.trust.policy import decide as policy

METADATAS: tuple[MetaData, ...] = (
    store_tables.METADATA,
    audit_tables.METADATA,
    identity_tables.METADATA,
    federation_tables.METADATA,
    channel_tables.HUB,
    tables.METADATA,
)
"""All tables of a hub."""

VERSIONS = Path(__file__).with_name("versions")
TICK_SECONDS = 0.5
FromMember = FromSite | Offered | OfficerNamed | PermitSigned | PermitRefused


@dataclass(slots=True, kw_only=True)
class Ports:
    """What the world gives to a program."""

    clock: Clock
    randomness: Randomness
    disk: Disk
    blocking: Blocking
    workers: Workers


@dataclass(slots=True, kw_only=True)
class Hub:
    """A hub, put together."""

    settings: HubSettings
    ports: Ports
    store: Store
    key: HeldKey
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
    authority: bytes  # PEM of the certificate authority that members pin
    jobs: list[asyncio.Task[None]]

    def find(self, tx: Connection, name: str) -> Client | None:
        """Who may have a token: a member site or a person."""
        return members.find_client(tx, name) if name.startswith("site-") else people.find_client(tx, name)

    def ring(self, sites: set[SiteId]) -> None:
        """Wake the parked requests of these sites, after a commit that posted to them."""
        for site in sites:
            self.parked.wake(site)

    async def start(self) -> None:
        """Take up what a restart left, and begin to tick."""
        await self.apps.start()
        self.apps.work(await self.runs.work())
        self.jobs.append(asyncio.get_running_loop().create_task(self._tick()))

    async def stop(self) -> None:
        """Answer the parked requests and end the jobs."""
        self.parked.stop()
        for job in self.jobs:
            job.cancel()
        for job in self.jobs:
            with contextlib.suppress(asyncio.CancelledError):
                await job
        await self.apps.stop()
        await self.runs.close()

    async def _tick(self) -> None:
        while True:
            await self.ports.clock.sleep(TICK_SECONDS)
            try:
                self.ring(await self.store.write(self.runs.tick))
                self.apps.work(await self.runs.work())
                await self.heads.advance()
            except Unavailable:
                continue  # the database cannot be reached just now; nothing is lost, the next tick does it


def origin_of(settings: HubSettings) -> str:
    """The name of the federation log: fixed for its life."""
    return settings.url.removeprefix("https://").replace("+", "-") + "/federation"


def open_hub(settings: HubSettings, ports: Ports, *, authority: bytes) -> Hub:
    """Put a hub together. authority: PEM of its certificate authority. Raises StoreUnsafe, StoreUnavailable, LogDamaged."""
    store = open_store(settings.database, ports.blocking, ports.disk)
    migrations.upgrade(store, VERSIONS)
    folder = settings.folder
    key = load_or_create(folder / "keys" / "hub.pem", ports.disk, ports.randomness)
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
        wake=parked.wake,
    )
    post = Post(clock=ports.clock)
    epoch_now = store.read_now(epoch.current)
    heads = AtHub(
        store,
        key_of=lambda tx, site: NoteKey.parse(members.member(tx, site).log_vkey),
        quorum=reports.quorum_of,
        covered=runs.release,
        clock=ports.clock,
        wake=parked.wake,
    )

    def handle(tx: Connection, site: SiteId, body: bytes) -> set[SiteId]:
        return _hear(tx, site, body, hub)

    async def work() -> None:
        apps.work(await runs.work())

    def ring(sites: set[SiteId]) -> None:
        for site in sites:
            parked.wake(site)

    apps = Apps(runs, store, ports.workers, ring)

    def committed(_site: SiteId) -> None:
        task = asyncio.get_running_loop().create_task(work())
        hub.jobs.append(task)
        task.add_done_callback(hub.jobs.remove)

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
        line=HubEnd(store, parked, handle=handle, heads=heads, clock=ports.clock, committed=committed),
        uploads=uploads,
        runs=runs,
        apps=apps,
        post=post,
        gate=Gate(policies=policy.load(), log=log, store=store),
        authority=authority,
        jobs=[],
    )
    store.write_now(lambda tx: logs.begin(tx, logs.FEDERATION, signer))
    return hub


def _hear(tx: Connection, site: SiteId, body: bytes, hub: Hub) -> set[SiteId]:
    """A member's message: to whom it belongs. Raises Refused, BadInput."""
    message = framing.unpack(body, FromMember, MOST_MESSAGE)
    match message:
        case Offered():
            proposals.offer(tx, site, message, hub.ports.clock.now())
            hub.log.write(
                tx, "data-set-offered", site=site, data_set=message.data_set.id, digest=message.data_set.digest()
            )
            return set()
        case OfficerNamed():
            officer = members.take_enrolment(tx, message.statement)
            if officer.site != site:
                raise BadInput("a site names the officer of another", do="name your own")
            hub.log.write(tx, "officer-named", statement=message.statement.decode())
            return set()
        case PermitSigned():
            return proposals.sign(tx, site, message, log=hub.log, post=hub.post)
        case PermitRefused():
            return proposals.refuse(tx, site, message, log=hub.log, post=hub.post)
        case _:
            return hub.runs.hear(tx, site, message)
