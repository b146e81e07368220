"""What an operator does at the hub's machine: make it, run it, invite. Each works on the hub's folder; the hub may be running."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection

from paroma.hub import tls
from paroma.hub.app import make_app
from paroma.hub.apps import OnDemand
from paroma.hub.parts import Hub, Ports, open_hub
from paroma.hub.settings import FILE, HubSettings, to_toml
from paroma.kernel import settings as kernel_settings
from paroma.kernel.blocking import Threads
from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import OsRandomness
from paroma.kernel.wire.network import origin
from paroma.kernel.wire.serve import Listening, serve
from paroma.learn.sandbox.task import Workers
from paroma.trust.federation import invitations, pinning
from paroma.trust.identity import people
from paroma.trust.identity.login_line import LoginLine
from paroma.trust.identity.oidc import enrol_address, network_for
from paroma.trust.identity.tokens import ROLES
from paroma.trust.keys.named import Homes


def init(
    folder: Path, name: str, *, host: str = "127.0.0.1", port: int = 8443, url: str | None = None, key: str = ""
) -> HubSettings:
    """Make a hub's folder: settings, keys, certificates, an empty database. Safe to repeat with the same name and address.

    key: name of the key to sign with, made if need be; empty: a file.
    """
    made = HubSettings(
        folder=folder, name=name, host=host, port=port, url=origin(url or f"https://{host}:{port}"), signing_key=key
    )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / FILE
    if file.exists():
        there = load(folder)
        if (there.name, there.url) != (made.name, made.url):
            raise Refused(f"`{folder}` holds another hub, `{there.name}`", do="name another folder, or use it as it is")
        return there
    if key:
        Homes.of_this_machine(SystemDisk(), OsRandomness()).signing_or_new(key).close()
    SystemDisk().replace(file, to_toml(made).encode(), mode=0o600)
    opened(load(folder)).store.close()  # the environment may name another database
    return made


def load(folder: Path) -> HubSettings:
    """The settings in a hub's folder and in the environment. Raises SettingInvalid."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("PAROMA_HUB_")}
    return kernel_settings.load(HubSettings, folder / FILE, environ, prefix="PAROMA_HUB_")


def opened(settings: HubSettings) -> Hub:
    """The hub over the machine's clock, disk and randomness, its database brought up to date."""
    return _opened(settings, OnDemand(settings.folder / "notes"))


@contextmanager
def at_hub(folder: Path) -> Iterator[Hub]:
    """The hub of a folder for one command, while another process may serve it. Raises SettingInvalid."""
    hub = opened(load(folder))
    try:
        yield hub
    finally:
        hub.store.close()


def _opened(settings: HubSettings, workers: Workers) -> Hub:
    ports = Ports(
        clock=SystemClock(),
        randomness=OsRandomness(),
        disk=SystemDisk(),
        blocking=Threads(4, "hub"),
        workers=workers,
        network=network_for(settings.login) if settings.login.issuer else None,
    )
    return open_hub(settings, ports, authority=_files(settings).ca.read_bytes())


def run(folder: Path, ready: Callable[[HubSettings], None] = lambda _settings: None) -> None:
    """Serve until SIGINT or SIGTERM; the parked sites are answered first."""
    settings = load(folder)
    workers = OnDemand(settings.folder / "notes")
    hub, files = _opened(settings, workers), _files(settings)
    where = Listening(host=settings.host, port=settings.port, certificate=files.certificate, key=files.key)

    async def stop() -> None:
        hub.parked.stop()

    async def main() -> None:
        renewed = asyncio.Event()
        renew = None if settings.certificate else lambda: _files(settings)
        watching = asyncio.get_running_loop().create_task(tls.watch(renewed, files, renew, clock=SystemClock()))
        try:
            await serve(make_app(hub), where, on_stop=stop, ready=lambda: ready(settings), renewed=renewed)
        finally:
            watching.cancel()
        await workers.stop()

    asyncio.run(main())
    hub.store.close()


def invite(folder: Path, owner: str | None = None) -> str:
    """One line that lets one site join. owner: whom it must belong to, if that is known."""
    with at_hub(folder) as hub:

        def mint(tx: Connection) -> str:
            hub.log.write(tx, "invitation-made", owner=owner or "")
            made = invitations.mint(
                tx,
                url=hub.settings.url,
                fingerprint=pinning.fingerprint(hub.authority),
                log_vkey=hub.signer.vkey,
                now=hub.ports.clock.now(),
                randomness=hub.ports.randomness,
                owner=owner,
            )
            return str(made)

        return hub.store.write_now(mint)


def enrol_link(folder: Path, name: str, role: str, *, provider: bool = False) -> str:
    """One line that enrols one person in `role`; provider: an address for who signs in there. Raises BadInput."""
    allowed = sorted(ROLES - {"site", "officer", "desk"})
    if role not in allowed:
        raise BadInput(f"`{role}` is no role at a hub", do=f"name one of {', '.join(allowed)}")
    settings = load(folder)
    if provider:
        enrol_address(settings.login, settings.url, "")  # refused before there is a code that nobody can spend
    with at_hub(folder) as hub:
        code = hub.store.write_now(
            lambda tx: people.invite(
                tx,
                name=name,
                role=role,  # type: ignore[arg-type]  # one of ROLES, as was just checked
                site=None,
                now=hub.ports.clock.now(),
                randomness=hub.ports.randomness,
            )
        )
    if provider:
        return enrol_address(settings.login, settings.url, code)
    return str(LoginLine(url=settings.url, fingerprint=pinning.fingerprint(hub.authority), code=code))


def _files(settings: HubSettings) -> tls.TlsFiles:
    if settings.certificate and settings.key and settings.authority:
        return tls.TlsFiles(ca=settings.authority, certificate=settings.certificate, key=settings.key)
    host = urlsplit(settings.url).hostname or settings.host
    names = tuple(dict.fromkeys((host, "localhost", "127.0.0.1")))
    return tls.own_files(settings.folder / "tls", names=names, clock=SystemClock(), disk=SystemDisk())
