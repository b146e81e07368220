"""Puts a site together from its settings: keys, vault, store, log, line, rounds. `open_site` is the only maker.

Clock, randomness, disk, network, workers and blocking come in, so that the simulation runs this very code.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Connection, MetaData, select

from paroma.data.catalogue.data_set import DataSet, Offered, parse
from paroma.data.consent import state as consent, tables as consent_tables
from paroma.data.consent.bits import Board
from paroma.data.consent.statement import Choice, Scope
from paroma.data.rights import tables as rights_tables
from paroma.data.vault.vault import Vault, open_vault
from paroma.kernel.blocking import Blocking
from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.kernel.ids import PatientId, PermitId, PersonId
from paroma.kernel.randomness import Randomness
from paroma.kernel.store import migrations, tables as store_tables
from paroma.kernel.store.database import Store, open_store, upsert
from paroma.kernel.wire import framing
from paroma.kernel.wire.network import Network
from paroma.learn.disclosure.ledger import Kept
from paroma.learn.runs.messages import RunInvitation
from paroma.learn.sandbox.task import Workers
from paroma.learn.sandbox.walls import Wall
from paroma.learn.secagg.agreement import Kem
from paroma.site import anchors, permits, tables
from paroma.site.follow import Follower
from paroma.site.gate import FEDERATION, HUB, Gate
from paroma.site.round import After, Parts, Rounds, RunMessage
from paroma.site.settings import Membership, SiteSettings, member_of
from paroma.site.tables import FLAGS, RECEIPTS
from paroma.trust.audit import entries, log as logs, tables as audit_tables
from paroma.trust.audit.checkpoint import LogInconsistent
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner, NoteKey
from paroma.trust.channel import outbox, tables as channel_tables
from paroma.trust.channel.caller import Caller
from paroma.trust.channel.heads import AtSite
from paroma.trust.channel.line import Arrival, Events, Line
from paroma.trust.channel.messages import MOST_MESSAGE, Refusal
from paroma.trust.federation import members, tables as federation_tables
from paroma.trust.federation.messages import OfficerNamed
from paroma.trust.identity import epoch, tables as identity_tables
from paroma.trust.identity.clients import Issuer
from paroma.trust.identity.nonces import Nonces
from paroma.trust.identity.oidc import Provider, open_provider
from paroma.trust.identity.people import Person
from paroma.trust.identity.tokens import Verifier
from paroma.trust.keys.files import load_or_create_log_key
from paroma.trust.keys.named import Homes, of_program
from paroma.trust.keys.signing import SigningKey
from paroma.trust.permit.messages import PermitEnded, PermitIssued, PermitProposed
from paroma.trust.permit.permit import PermitUnsigned
from paroma.trust.policy import tables as policy_tables
from paroma.trust.policy.desk import open_desk
from paroma.trust.policy.facts import Receive

METADATAS: tuple[MetaData, ...] = (
    store_tables.METADATA,
    audit_tables.METADATA,
    identity_tables.METADATA,
    federation_tables.METADATA,
    channel_tables.SITE,
    consent_tables.METADATA,
    rights_tables.METADATA,
    policy_tables.METADATA,
    tables.METADATA,
)
"""All tables of a site."""

VERSIONS = Path(__file__).with_name("versions")
SHORTEST_WAIT = 1.0  # s between two looks at periods that begin or end
SIGNER_PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0)  # s until the federation log is followed once more for a signer's key
NOTICE_SECONDS = 0.5  # s between two looks at the revocation epoch
KEEP_SECONDS = 5.0  # s between two writings of what was decided


class Nudge(msgspec.Struct, frozen=True, kw_only=True, tag="nudge", forbid_unknown_fields=True):
    """Look at the heads of this reply: something waits for cosignatures."""


FromHub = RunInvitation | RunMessage | PermitProposed | PermitIssued | PermitEnded | Nudge


@dataclass(slots=True, kw_only=True)
class Ports:
    """What the world gives to a program."""

    clock: Clock
    randomness: Randomness
    disk: Disk
    blocking: Blocking
    network: Network
    workers: Workers
    kem: Kem
    walls: Callable[[], tuple[Wall, ...]]
    logins: Network | None = None  # to the provider of logins, where one is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A withdrawal that is durable. entry: its place in the site log. seconds: from the request until here."""

    choice: Choice
    entry: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Site:
    """A site, put together."""

    settings: SiteSettings
    membership: Membership
    ports: Ports
    store: Store
    key: SigningKey
    journal: Journal
    gate: Gate
    vault: Vault
    board: Board
    budget: Kept
    nonces: Nonces
    issuer: Issuer
    verifier: Verifier
    provider: Provider | None  # at which the site's people sign in
    caller: Caller
    heads: AtSite
    line: Line
    follower: Follower
    rounds: Rounds
    federation: NoteKey
    failures: list[str] = field(default_factory=list)
    jobs: list[asyncio.Task[None]] = field(default_factory=list)
    online: bool = False
    heard: float | None = None  # when the hub answered last, unix s

    async def start(self) -> None:
        """Take up what a restart left, and talk with the hub."""
        await self.rounds.start()
        loop = asyncio.get_running_loop()
        for job in (self.line.run(), self.follower.run(), self._periods(), self._keep(), self._notice()):
            task = loop.create_task(job)
            task.add_done_callback(self._over)
            self.jobs.append(task)

    def _over(self, job: asyncio.Task[None]) -> None:
        """A job that ended by itself: the site says so, and is not online. What needs no hub goes on."""
        if job.cancelled() or (problem := job.exception()) is None:
            return
        self.online = False
        said = problem.message if isinstance(problem, ParomaError) else f"{type(problem).__name__} in the program"
        self.failures = [*self.failures[-20:], f"{said}; start the site again once it is mended"]

    async def stop(self) -> None:
        """Stop within a second; what was under way is taken up again."""
        self.line.stop()
        for job in self.jobs[1:]:
            job.cancel()
        for job in self.jobs:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # said in `failures` already
                await job
        with contextlib.suppress(Unavailable):  # it is kept for explanations only; the log has it
            await self.gate.desk.keep(self.store)
        await self.rounds.stop()

    # -- acts that stop something: they need nothing but this site

    async def withdraw(self, patient: PatientId, scope: Scope, *, by: str) -> Withdrawn:
        """A patient's no. When this returns it is durable, in the log, and no worker reads them any more."""
        began = self.ports.clock.monotonic()
        now = self.ports.clock.now()

        def write(tx: Connection) -> tuple[Choice, int, After]:
            made = consent.withdraw(tx, patient, scope, now, self.ports.randomness, by=by)
            committed = entries.commitment(made.salt, f"{patient}\n{made.number}".encode())
            number = self.journal.write(tx, "withdrawal", commitment=committed, scope=scope.kind, by=by)
            seconds = self.ports.clock.monotonic() - began
            row = {"number": made.number, "entry": number, "seconds": seconds}
            tx.execute(upsert(tx, RECEIPTS).values(row).on_conflict_do_nothing())
            after = self.rounds.withdrawn(tx)
            after.log = max(after.log, number + 1)  # a copy of the database without this no does not open
            return made, number, after

        try:
            made, number, after = await self.store.write(write)
        finally:
            await self.ports.blocking.run(lambda: self.board.refresh([patient]))
        await self.rounds.settle(after)
        return Withdrawn(choice=made, entry=number, seconds=self.ports.clock.monotonic() - began)

    async def give(self, patient: PatientId, scope: Scope, *, by: str) -> Choice:
        """A patient's yes, from now on."""
        now = self.ports.clock.now()

        def write(tx: Connection) -> Choice:
            made = consent.give(tx, patient, scope, now, self.ports.randomness, by=by)
            committed = entries.commitment(made.salt, f"{patient}\n{made.number}".encode())
            self.journal.write(tx, "given", commitment=committed, scope=scope.kind, by=by)
            return made

        made = await self.store.write(write)
        await self.ports.blocking.run(lambda: self.board.refresh([patient]))
        return made

    async def pause(self, *, paused: bool, by: str) -> None:
        """Pause every use, or let uses go on."""

        def write(tx: Connection) -> None:
            row = {"name": "paused", "value": "yes" if paused else "no"}
            tx.execute(
                upsert(tx, FLAGS)
                .values(row)
                .on_conflict_do_update(index_elements=["name"], set_={"value": row["value"]})
            )
            self.journal.write(tx, "paused" if paused else "resumed", by=by)

        await self.store.write(write)

    # -- people of this site

    def enrolled(self, tx: Connection, person: Person) -> None:
        """An officer enrolled: the site names them to the federation."""
        self.journal.write(tx, "person-enrolled", person=person.person, role=person.role, key=person.thumbprint)
        if person.role == "officer" and person.key is not None:
            statement = members.enrolment(
                self.key,
                site=self.membership.site,
                person=PersonId(person.person),
                name=person.name,
                officer=person.key,
                at=self.ports.clock.now(),
            )
            if any(m.site == self.membership.site for m in members.members(tx)):
                members.take_enrolment(tx, statement)  # else it comes with the federation log, as everybody's does
            outbox.send(
                tx,
                f"officer/{person.person}",
                framing.pack(OfficerNamed(statement=statement)),
                now=self.ports.clock.now(),
            )

    # -- what the hub says

    async def handle(self, arrival: Arrival) -> None:
        """One message, to whom it belongs."""
        message = framing.unpack(arrival.body, FromHub, MOST_MESSAGE)
        me, now = self.membership.site, self.ports.clock.now()
        if isinstance(message, PermitProposed | PermitIssued):
            self._require_consistent()  # what stops is never refused; a use is decided as it is done
        match message:
            case Nudge():
                return
            case PermitProposed():
                await self._known(message.permit.participants)
                await self.store.write(
                    lambda tx: (
                        permits.proposed(tx, message, me, self.gate, self.journal, now) if arrival.admit(tx) else None
                    )
                )
            case PermitIssued():
                await self._issued(arrival, message)
            case PermitEnded():
                await self._permit_ended(arrival, message)
            case RunInvitation():
                await self._invited(arrival, message)
            case _:
                await self.rounds.heard(arrival, message)
        self.line.wake()

    def _require_consistent(self) -> None:
        """Whether this site still believes what rests on the federation log. Raises Refused."""
        log = "consistent" if self.heads.trouble is None else "inconsistent"
        self.gate.decide(HUB, Receive(log=log), FEDERATION).require()

    async def _invited(self, arrival: Arrival, message: RunInvitation) -> None:
        """Take part in a run, or say at once that this site does not."""
        try:
            self._require_consistent()
            await self._known(message.participants)
            await self._once_signed(lambda: self.rounds.invited(arrival, message))
        except (Refused, BadInput) as problem:
            self.failures = [*self.failures[-20:], problem.message]
            await self.rounds.stay_out(arrival, message, problem)

    async def _permit_ended(self, arrival: Arrival, message: PermitEnded) -> None:
        def take(tx: Connection) -> After:
            if not arrival.admit(tx):
                return After()
            permits.ended(tx, message.permit, message.state, self.journal, self.ports.clock.now())
            return self.rounds.permit_ended(tx, message.permit)

        await self.rounds.settle(await self.store.write(take))

    async def end_permit(self, permit: PermitId, reason: str, *, by: PersonId) -> float | None:
        """The officer ends a valid permit here. When it had been ended before, else None. Raises PermitNotHere, NotValidYet."""

        def write(tx: Connection) -> tuple[float | None, After]:
            before = permits.end(tx, permit, reason, self.journal, self.ports.clock.now(), by=by)
            return before, After() if before is not None else self.rounds.permit_ended(tx, permit)

        before, after = await self.store.write(write)
        await self.rounds.settle(after)
        self.line.wake()
        return before

    async def _issued(self, arrival: Arrival, message: PermitIssued) -> None:
        def take(tx: Connection) -> None:
            if arrival.admit(tx):
                permits.issued(tx, message, self.membership.site, self.journal, self.ports.clock.now())

        await self._once_signed(lambda: self.store.write(take))

    async def _once_signed(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do `work`; where it knows a signer not yet, follow the federation log and try again, for some seconds.

        An officer may have been named, or their site let in again, a moment ago, and the entry be on its way: a message that
        is refused does not come again. Raises what `work` raises, PermitUnsigned at last.
        """
        for pause in SIGNER_PAUSES:
            try:
                await work()
            except PermitUnsigned:
                await self.ports.clock.sleep(pause)
                await self._read_on()
            else:
                return
        await work()

    async def _known(self, participants: tuple[object, ...]) -> None:
        """Follow the federation log once more where it names a member that this site has not read of yet."""
        known = {m.site for m in await self.store.read(members.members)}
        if any(getattr(one, "site", None) not in known for one in participants):
            await self._read_on()

    async def _read_on(self) -> None:
        """Follow the federation log for the sake of one message. Raises Unavailable, and Refused where the log is found changed:
        then that message is not taken, and the line goes on, for what stops something.
        """
        try:
            await self.follower.catch_up()
        except LogInconsistent as problem:
            raise Refused(problem.message, do=problem.do) from problem

    async def _periods(self) -> None:
        """Compile the bits anew whenever a consent's period begins or ends."""
        while True:
            edge = self.board.next_change()
            wait = 60.0 if edge is None else max(edge - self.ports.clock.now(), SHORTEST_WAIT)
            await self.ports.clock.sleep(min(wait, 60.0))
            with contextlib.suppress(Unavailable):  # the change is still due: the next look takes it up
                await self.ports.blocking.run(lambda: self.board.recompile(self.ports.clock.now()))

    async def _notice(self) -> None:
        """A command at this machine revoked somebody: their tokens are refused from now on, and the hub is told."""
        while True:
            await self.ports.clock.sleep(NOTICE_SECONDS)
            with contextlib.suppress(Unavailable):
                now = await self.store.read(epoch.current)
                if now != self.verifier.epoch:
                    self.verifier.revoked(now)
                    self.line.wake()

    async def _keep(self) -> None:
        """Write down what was decided for people, so that it can be explained and replayed."""
        while True:
            await self.ports.clock.sleep(KEEP_SECONDS)
            with contextlib.suppress(Unavailable):  # the database cannot be written just now; the next time does it
                await self.gate.desk.keep(self.store)

    # -- data sets

    def data_set(self, name: str) -> DataSet:
        """The description of a data set that this site offers. Raises BadInput."""
        return self.store.read_now(lambda tx: data_set_of(tx, name))


def missing(walls: tuple[Wall, ...]) -> frozenset[str]:
    """The required walls that do not stand."""
    return frozenset(wall.name for wall in walls if wall.required and not wall.there)


def data_set_of(tx: Connection, name: str) -> DataSet:
    """The description of a data set that this site offers. Raises BadInput."""
    found = tx.execute(select(FLAGS.c.value).where(FLAGS.c.name == f"set/{name}"[:40])).scalar_one_or_none()
    if found is None:
        raise BadInput(f"this site holds no data set `{name}`", do="load its records first")
    return parse(found.encode())


def offer(tx: Connection, data_set: DataSet, now: float) -> None:
    """Offer a data set: kept here, and told to the hub."""
    row = {"name": f"set/{data_set.id}"[:40], "value": msgspec.json.encode(data_set).decode()}
    tx.execute(
        upsert(tx, FLAGS).values(row).on_conflict_do_update(index_elements=["name"], set_={"value": row["value"]})
    )
    outbox.send(tx, f"offered/{data_set.id}", framing.pack(Offered(data_set=data_set)), now=now)


def open_site(settings: SiteSettings, ports: Ports) -> Site:
    """Put a site together. Raises BadInput where it has not joined, VaultInUse, StoreUnsafe, LogDamaged,
    DatabaseOutdated and BudgetOutdated (an older copy was brought back).
    """
    membership, folder, clock = member_of(settings), settings.folder, ports.clock
    store = open_store(settings.database, ports.blocking, ports.disk)
    migrations.upgrade(store, VERSIONS)
    homes = Homes.of_this_machine(ports.disk, ports.randomness)
    key = of_program(settings.signing_key, folder / "keys" / "site.pem", homes)
    log_key = load_or_create_log_key(folder / "keys" / "log.pem", ports.disk, ports.randomness)
    signer = CheckpointSigner(_log_name(folder), log_key)
    cosigner = Cosigner(signer.origin, log_key)
    journal = Journal(name=logs.SITE, signer=signer, clock=clock)
    federation = NoteKey.parse(membership.log_vkey)
    vault = open_vault(
        folder / "vault",
        settings.roots,
        ports.disk,
        ports.randomness,
        [homes.wrapping(one) for one in settings.root_keys],
    )
    store.write_now(lambda tx: logs.begin(tx, logs.SITE, signer))
    caller = Caller(ports.network, key, membership.site, membership.hub, clock=clock, randomness=ports.randomness)
    follower = Follower(
        store, caller, federation, blocking=ports.blocking, clock=clock, recheck=settings.recheck_seconds
    )
    heads = AtSite(store, federation=federation, cosigner=cosigner, clock=clock, news=follower.news)
    gate = Gate(desk=open_desk(store, clock), journal=journal)
    zone = settings.zone
    board = Board(lambda use, ps: store.read_now(lambda tx: consent.verdicts(tx, use, clock.now(), ps)))
    budget, anchored = Kept(vault.register("budget").by_value(), ports.randomness), vault.register("runs")
    try:
        anchors.require(store, anchored, budget)
    except ParomaError:
        vault.close()
        store.close()
        raise
    nonces = Nonces(clock, ports.randomness)

    def reached(at: float) -> None:
        site.heard = at
        if not site.online:
            follower.doubt()
        site.online = True

    def failed(problem: ParomaError) -> None:
        site.online = False
        site.failures = [*site.failures[-20:], problem.message]

    def refused_here(_arrival: Arrival, problem: ParomaError) -> None:
        site.failures = [*site.failures[-20:], problem.message]

    def refused_there(refusal: Refusal) -> None:
        site.failures = [*site.failures[-20:], refusal.message]

    async def handle(arrival: Arrival) -> None:
        await site.handle(arrival)

    line = Line(
        caller,
        store,
        handle=handle,
        heads=heads,
        events=Events(reached=reached, failed=failed, refused_here=refused_here, refused_there=refused_there),
        clock=clock,
        randomness=ports.randomness,
    )
    rounds = Rounds(
        Parts(
            me=membership.site,
            store=store,
            journal=journal,
            gate=gate,
            vault=vault,
            board=board,
            budget=budget,
            anchors=anchored,
            workers=ports.workers,
            caller=caller,
            wake=line.wake,
            federation=federation,
            cosigned=lambda: heads.cosigned,
            walls_missing=lambda: missing(ports.walls()),
            # read once: records, and with them a description, are loaded while the site stands still
            data_set=functools.cache(lambda name: store.read_now(lambda tx: data_set_of(tx, name))),
            key=key,
            sealing=_sealing(folder / "keys" / "runs.key", ports),
            kem=ports.kem,
            clock=clock,
            randomness=ports.randomness,
            blocking=ports.blocking,
            seconds=settings.worker_seconds,
            hour=lambda at: datetime.fromtimestamp(at, zone).hour,
        )
    )
    epoch_now = store.read_now(epoch.current)
    site = Site(
        settings=settings,
        membership=membership,
        ports=ports,
        store=store,
        key=key,
        journal=journal,
        gate=gate,
        vault=vault,
        board=board,
        budget=budget,
        nonces=nonces,
        issuer=Issuer(key, settings.origin, nonces=nonces, clock=clock, randomness=ports.randomness),
        verifier=Verifier(key.public, issuer=settings.origin, audience=settings.origin, epoch=epoch_now, clock=clock),
        provider=open_provider(
            settings.login, ports.logins, settings.folder, disk=ports.disk, clock=clock, randomness=ports.randomness
        ),
        caller=caller,
        heads=heads,
        line=line,
        follower=follower,
        rounds=rounds,
        federation=federation,
    )
    return site


def log_name(folder: Path, randomness: Randomness, disk: Disk) -> str:
    """The name of the site's log, chosen before it joins and kept for its life."""
    file = folder / "keys" / "log.name"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.replace(file, f"paroma.site/{randomness.take(8).hex()}".encode())
    return file.read_text()


def _log_name(folder: Path) -> str:
    return (folder / "keys" / "log.name").read_text()


def _sealing(file: Path, ports: Ports) -> bytes:
    if not file.exists():
        ports.disk.replace(file, ports.randomness.take(32))
    return file.read_bytes()
