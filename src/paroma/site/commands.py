"""What an officer does at the site's machine: join, load, run, make links, look at the walls. Each works on the site's folder."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from paroma.data.catalogue.data_set import DataSet, load as load_data_set
from paroma.data.connect import load as loading
from paroma.data.connect.load import Brought
from paroma.data.consent import state as consent
from paroma.data.vault.vault import open_vault
from paroma.kernel import settings as kernel_settings
from paroma.kernel.blocking import Inline, Threads
from paroma.kernel.clock import Clock, SystemClock
from paroma.kernel.disk import Disk, SystemDisk
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, printable
from paroma.kernel.randomness import OsRandomness, Randomness
from paroma.kernel.store import migrations
from paroma.kernel.store.database import Store, open_store
from paroma.kernel.wire.network import HttpsNetwork, Network, trusting, trusting_nobody_yet
from paroma.kernel.wire.serve import Listening, serve
from paroma.learn.flower import session as flower
from paroma.learn.runs.work import COMPUTE
from paroma.learn.sandbox.host import Sandbox, inspect_walls
from paroma.learn.sandbox.walls import Wall
from paroma.learn.secagg.agreement import MlKem768
from paroma.site.app import make_app
from paroma.site.parts import VERSIONS, Ports, log_name, member_of, offer, open_site
from paroma.site.settings import FILE, MEMBER, Membership, SiteSettings, to_toml
from paroma.trust.audit.notes import CheckpointSigner
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.federation import invitations, join as joining, pinning
from paroma.trust.identity import people
from paroma.trust.identity.login_line import LoginLine
from paroma.trust.keys.files import load_or_create, load_or_create_log_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What joining did. again: it had been done before."""

    site: str
    hub: str
    folder: str
    pages: str
    again: bool


def join(line: str, folder: Path, *, owner: str, title: str, port: int = 8480) -> Joined:
    """Join a federation with one line: keys are made here and stay here, nothing is carried by hand. Safe to repeat."""
    return asyncio.run(
        join_over(
            line,
            folder,
            owner=owner,
            title=title,
            port=port,
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
    networks: Callable[[str, bytes | None], Network],
    clock: Clock,
    randomness: Randomness,
    disk: Disk,
) -> Joined:
    """`join` over a network: networks(origin, authority or None before it is known)."""
    invitation = invitations.parse(line)
    settings = SiteSettings(folder=folder, title=title, port=port)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240
    if (folder / MEMBER).exists():  # a command: nothing else waits in this loop
        there = member_of(settings)
        if there.hub != invitation.url:
            raise Refused(
                f"`{folder}` is a site of `{there.hub}` already", do="use another folder for another federation"
            )
        return Joined(
            site=there.site, hub=there.hub, folder=str(folder), pages=load_settings(folder).origin, again=True
        )
    authority = await pinning.fetch_ca(networks(invitation.url, None), invitation.url, invitation.fingerprint)
    key = load_or_create(folder / "keys" / "site.pem", disk, randomness)
    log_key = load_or_create_log_key(folder / "keys" / "log.pem", disk, randomness)
    signer = CheckpointSigner(log_name(folder, randomness, disk), log_key)
    body = joining.request(invitation, key, log_vkey=signer.vkey, owner=owner, title=title)
    caller = Caller(
        networks(invitation.url, authority), key, key.thumbprint, invitation.url, clock=clock, randomness=randomness
    )
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


def load_settings(folder: Path) -> SiteSettings:
    """The settings in a site's folder and in the environment. Raises SettingInvalid."""
    import os

    environ = {name: value for name, value in os.environ.items() if name.startswith("PAROMA_SITE_")}
    return kernel_settings.load(SiteSettings, folder / FILE, environ, prefix="PAROMA_SITE_")


def run(folder: Path, ready: Callable[[SiteSettings], None] = lambda _settings: None) -> None:
    """Talk with the hub and serve the pages until SIGINT or SIGTERM."""
    settings = load_settings(folder)
    member = member_of(settings)

    async def main() -> None:
        sandbox = await Sandbox.start(preloads(), environment=flower.ENVIRONMENT, notes=folder / "notes", limits=None)
        ports = Ports(
            clock=SystemClock(),
            randomness=OsRandomness(),
            disk=SystemDisk(),
            blocking=Threads(4, "site"),
            network=HttpsNetwork([member.hub], trust=trusting(member.authority.encode())),
            workers=sandbox,
            kem=MlKem768(),
            walls=sandbox.walls,
        )
        site = open_site(settings, ports)
        where = Listening(host=settings.host, port=settings.port)

        async def stop() -> None:
            site.line.stop()

        await serve(make_app(site), where, on_stop=stop, ready=lambda: ready(settings))
        site.vault.close()
        site.store.close()
        await sandbox.stop()

    asyncio.run(main())


def preloads() -> tuple[str, ...]:
    """What the site's worker imports before its first fork: the platform's algorithms, and Flower where it is installed."""
    from importlib.util import find_spec

    return (COMPUTE, flower.TRAIN) if find_spec("flwr") else (COMPUTE,)


def load(folder: Path, files: Iterable[Path], data_set: Path) -> Brought:
    """Bring FHIR NDJSON files into the vault, all or nothing, and offer the data set. The site must not be running."""
    settings = load_settings(folder)
    described: DataSet = load_data_set(data_set)
    store, disk, clock = _store(settings), SystemDisk(), SystemClock()
    vault = open_vault(folder / "vault", settings.roots, disk, OsRandomness())
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


def officer_link(folder: Path, name: str, role: str = "officer") -> str:
    """One line that enrols one person of this site. The site may be running."""
    settings = load_settings(folder)
    member, store = member_of(settings), _store(settings)
    code = store.write_now(
        lambda tx: people.invite(
            tx,
            name=name,
            role=role,  # type: ignore[arg-type]  # checked by the command
            site=member.site,
            now=SystemClock().now(),
            randomness=OsRandomness(),
        )
    )
    store.close()
    return str(LoginLine(url=settings.origin, fingerprint="", code=code))


def patient_link(folder: Path, patient: str) -> str:
    """The address that opens a patient's pages, once. The site may be running: only its database is written."""
    settings = load_settings(folder)
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
