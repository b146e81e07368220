"""What an officer does at the site's machine: join, load, make links, look at the walls. Each works on the site's folder."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from paroma.data.catalogue.data_set import DataSet, load as load_data_set
from paroma.data.connect import load as loading
from paroma.data.connect.load import Brought
from paroma.data.consent import state as consent
from paroma.data.vault.errors import VaultInUse
from paroma.data.vault.vault import open_vault
from paroma.kernel.blocking import Inline
from paroma.kernel.clock import Clock, SystemClock
from paroma.kernel.disk import Disk, SystemDisk
from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import PatientId, PersonId, printable
from paroma.kernel.randomness import OsRandomness, Randomness
from paroma.kernel.store import migrations
from paroma.kernel.store.database import Store, open_store
from paroma.kernel.wire.network import HttpsNetwork, Network, closing, trusting, trusting_nobody_yet
from paroma.learn.sandbox.host import inspect_walls
from paroma.learn.sandbox.walls import Wall
from paroma.site import ending
from paroma.site.parts import VERSIONS, log_name, offer
from paroma.site.permits import LONGEST_REASON
from paroma.site.settings import FILE, MEMBER, Membership, SiteSettings, load as settings_of, member_of, to_toml
from paroma.trust.audit import log as logs
from paroma.trust.audit.journal import Journal
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.federation import invitations, join as joining, pinning
from paroma.trust.identity import people
from paroma.trust.identity.login_line import LoginLine
from paroma.trust.identity.oidc import enrol_address
from paroma.trust.identity.people import Person
from paroma.trust.keys.files import load_or_create_log_key
from paroma.trust.keys.named import Homes, of_program
from paroma.trust.keys.signing import SigningKey
from paroma.trust.policy import facts
from paroma.trust.policy.decide import Ask
from paroma.trust.policy.desk import open_desk
from paroma.trust.policy.facts import Entity


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What joining did. again: it had been done before."""

    site: str
    hub: str
    folder: str
    pages: str
    again: bool


def join(line: str, folder: Path, *, owner: str, title: str, port: int = 8480, key: str = "") -> Joined:
    """Join a federation with one line: keys are made here and stay here, nothing is carried by hand. Safe to repeat."""
    return asyncio.run(
        join_over(
            line,
            folder,
            owner=owner,
            title=title,
            port=port,
            signing_key=key,
            networks=_networks,
            clock=SystemClock(),
            randomness=OsRandomness(),
            disk=SystemDisk(),
        )
    )


def _networks(url: str, authority: bytes | None) -> Network:
    return HttpsNetwork([url], trust=trusting(authority) if authority else trusting_nobody_yet())


async def join_over(
    line: str,
    folder: Path,
    *,
    owner: str,
    title: str,
    port: int,
    signing_key: str = "",
    networks: Callable[[str, bytes | None], Network],
    clock: Clock,
    randomness: Randomness,
    disk: Disk,
) -> Joined:
    """`join` over a network: networks(origin, authority or None before it is known). signing_key: name of a key, or empty."""
    invitation = invitations.parse(line)
    settings = SiteSettings(folder=folder, title=title, port=port, signing_key=signing_key)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240
    if (folder / MEMBER).exists():  # a command: nothing else waits in this loop
        there = member_of(settings)
        if there.hub != invitation.url:
            raise Refused(
                f"`{folder}` is a site of `{there.hub}` already", do="use another folder for another federation"
            )
        return Joined(site=there.site, hub=there.hub, folder=str(folder), pages=settings_of(folder).origin, again=True)
    async with closing(networks(invitation.url, None)) as unknown:
        authority = await pinning.fetch_ca(unknown, invitation.url, invitation.fingerprint)
    homes = Homes.of_this_machine(disk, randomness)
    key: SigningKey = (
        homes.signing_or_new(signing_key) if signing_key else of_program("", folder / "keys" / "site.pem", homes)
    )
    log_key = load_or_create_log_key(folder / "keys" / "log.pem", disk, randomness)
    signer = CheckpointSigner(log_name(folder, randomness, disk), log_key)
    body = joining.request(invitation, key, log_vkey=signer.vkey, owner=owner, title=title)
    async with closing(networks(invitation.url, authority)) as network:
        caller = Caller(network, key, key.thumbprint, invitation.url, clock=clock, randomness=randomness)
        reply = await caller.prove("POST", joining.PATH, body, kind="application/json", wait=30.0)
    if reply.status not in {200, 201}:
        raise refused_by(reply)
    accepted = joining.read_accepted(reply.body, invitation, thumbprint=key.thumbprint)
    if not (folder / FILE).exists():
        disk.replace(folder / FILE, to_toml(settings).encode())
    member = Membership(
        site=accepted.site,  # type: ignore[arg-type]  # `read_accepted` parsed it
        title=title,
        owner=owner,
        hub=accepted.hub,
        hub_jwk=accepted.jwk,
        log_vkey=accepted.log_vkey,
        authority=authority.decode(),
    )
    disk.replace(folder / MEMBER, msgspec.json.encode(member))  # last: from here on the folder has joined
    return Joined(site=member.site, hub=member.hub, folder=str(folder), pages=settings.origin, again=False)


class SiteRunning(Unavailable):
    """Records are brought in while the site stands still: a vault has one writer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the site in `{folder}` is running, and records are brought in while it stands still; nothing was changed",
            do="stop it (Ctrl-C where it runs, or your service manager), load again, then start it: `paroma site run`. "
            "Runs that are open go on after that",
        )


def load(folder: Path, files: Iterable[Path], data_set: Path) -> Brought:
    """Bring FHIR NDJSON files into the vault, all or nothing, and offer the data set. Raises SiteRunning, BadInput."""
    settings = settings_of(folder)
    described: DataSet = load_data_set(data_set)
    store, disk, clock = _store(settings), SystemDisk(), SystemClock()
    try:
        homes = Homes.of_this_machine(disk, OsRandomness())
        keys = [homes.wrapping(one) for one in settings.root_keys]
        vault = open_vault(folder / "vault", settings.roots, disk, OsRandomness(), keys)
    except VaultInUse as problem:
        store.close()
        raise SiteRunning(folder) from problem
    opened = [(path.name, path.open("rb")) for path in files]
    try:
        batch = loading.parse(opened, known=vault)
        store.write_now(lambda tx: loading.keep_consents(tx, batch, clock.now()))
        stored = loading.keep_records(batch, vault)
        store.write_now(lambda tx: offer(tx, described, clock.now()))
    finally:
        for _, stream in opened:
            stream.close()
        vault.close()
        store.close()
    return loading.report(batch, stored)


SITE_ROLES = ("auditor", "desk", "officer")
AT_THE_MACHINE = Entity("Person", "at-the-machine")  # whoever can write into the site's folder holds its keys


def officer_link(folder: Path, name: str, role: str = "officer", *, provider: bool = False) -> str:
    """One line that enrols one person of this site; provider: an address for who signs in there. The site may be running.

    Raises BadInput.
    """
    if role not in SITE_ROLES:
        raise BadInput(f"`{printable(role)}` is no role at a site", do=f"name one of {', '.join(SITE_ROLES)}")
    settings = settings_of(folder)
    if provider:
        enrol_address(settings.login, settings.origin, "")  # refused before there is a code that nobody can spend
    member, store = member_of(settings), _store(settings)
    code = store.write_now(
        lambda tx: people.invite(
            tx,
            name=name,
            role=role,  # type: ignore[arg-type]  # one of SITE_ROLES
            site=member.site,
            now=SystemClock().now(),
            randomness=OsRandomness(),
        )
    )
    store.close()
    if provider:
        return enrol_address(settings.login, settings.origin, code)
    return str(LoginLine(url=settings.origin, fingerprint="", code=code))


def person_list(folder: Path) -> tuple[Person, ...]:
    """Everybody who is or was enrolled at this site."""
    store = _store(settings_of(folder))
    try:
        return store.read_now(people.people)
    finally:
        store.close()


def revoke_person(folder: Path, who: str, reason: str) -> tuple[Person, bool]:
    """End somebody's key; whether it had been done before. The site may be running: it notices. Raises PersonUnknown, BadInput."""
    said = printable(reason.strip(), longest=LONGEST_REASON)
    if not said:
        raise BadInput("no reason is given", do="say why, in a sentence: it stands in the log")
    settings, disk, clock = settings_of(folder), SystemDisk(), SystemClock()
    membership, store = member_of(settings), _store(settings)
    key = of_program(settings.signing_key, folder / "keys" / "site.pem", Homes.of_this_machine(disk, OsRandomness()))
    log_key = load_or_create_log_key(folder / "keys" / "log.pem", disk, OsRandomness())
    journal = Journal(
        name=logs.SITE, signer=CheckpointSigner(log_name(folder, OsRandomness(), disk), log_key), clock=clock
    )
    ask = Ask(
        action=facts.RevokePerson.ACTION,
        principal=AT_THE_MACHINE,
        resource=Entity("Person", who),
        facts=facts.RevokePerson(proven=True, enrolled=True, roles=frozenset({"officer"})),
    )
    desk = open_desk(store, clock)

    def revoke(tx: Connection) -> tuple[Person, bool]:
        desk.decide_in(tx, ask)[0].require()
        return ending.revoke(
            tx,
            PersonId(who),
            said,
            key=key,
            membership=membership,
            journal=journal,
            clock=clock,
            by=AT_THE_MACHINE.id,
        )

    try:
        return store.write_now(revoke)
    finally:
        store.close()


def patient_link(folder: Path, patient: str) -> str:
    """The address that opens a patient's pages, once. The site may be running: only its database is written."""
    settings = settings_of(folder)
    member, store = member_of(settings), _store(settings)
    if not store.read_now(lambda tx: consent.statements_of(tx, PatientId(patient))):
        raise BadInput(f"no consent of a patient `{printable(patient)}` is here", do="check the patient's number")
    code = store.write_now(
        lambda tx: people.browser_link(
            tx,
            PatientId(patient),
            name="patient",
            role="patient",
            site=member.site,
            now=SystemClock().now(),
            randomness=OsRandomness(),
        )
    )
    store.close()
    return f"{settings.origin}/open/{code}"


def doctor() -> tuple[Wall, ...]:
    """Every wall of the sandbox on this machine, and what it says."""
    return asyncio.run(inspect_walls())


def _store(settings: SiteSettings) -> Store:
    store = open_store(settings.database, Inline(), SystemDisk())
    migrations.upgrade(store, VERSIONS)
    return store
