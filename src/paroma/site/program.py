"""The running site. What takes long at the start happens side by side: the sandbox puts up its walls while the rest of the
program is imported, and the port opens once both are there.
"""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from paroma.kernel.blocking import Threads
from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness
from paroma.learn.algorithms.names import COMPUTE
from paroma.learn.flower.names import ENVIRONMENT, TRAIN
from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.several import Several
from paroma.site.settings import SiteSettings, load, member_of


def run(folder: Path, ready: Callable[[SiteSettings], None] = lambda _settings: None) -> None:
    """Talk with the hub and serve the pages until SIGINT or SIGTERM."""
    settings = load(folder)
    member = member_of(settings)

    async def main() -> None:
        blocking = Threads(4, "site")
        workers, _ = await asyncio.gather(start_workers(folder), blocking.run(_import))
        from paroma.kernel.wire.network import HttpsNetwork, close, trusting
        from paroma.kernel.wire.serve import Listening, serve
        from paroma.learn.secagg.agreement import MlKem768
        from paroma.site.app import make_app
        from paroma.site.parts import Ports, open_site
        from paroma.trust.identity.oidc import network_for

        network = HttpsNetwork([member.hub], trust=trusting(member.authority.encode()))
        ports = Ports(
            clock=SystemClock(),
            randomness=OsRandomness(),
            disk=SystemDisk(),
            blocking=blocking,
            network=network,
            workers=workers,
            kem=MlKem768(),
            walls=workers.walls,
            logins=network_for(settings.login) if settings.login.issuer else None,
        )
        site = open_site(settings, ports)

        async def stop() -> None:
            site.line.stop()

        where = Listening(host=settings.host, port=settings.port)
        async with network:
            await serve(make_app(site), where, on_stop=stop, ready=lambda: ready(settings))
        if ports.logins is not None:
            await close(ports.logins)
        site.vault.close()
        site.store.close()
        await workers.stop()

    asyncio.run(main())


async def start_workers(folder: Path) -> Several:
    """The platform's algorithms stand ready; Flower, where it is installed, gets a sandbox of its own at its first task.

    Raises SandboxIncomplete, PreloadFailed.
    """
    notes = folder / "notes"
    others = {}
    if find_spec("flwr"):
        others[TRAIN] = Sandbox.at_need((TRAIN,), environment=ENVIRONMENT, notes=notes / "flower")
    return Several(await Sandbox.start((COMPUTE,), environment=ENVIRONMENT, notes=notes), others)


def _import() -> None:
    import paroma.kernel.wire.serve
    import paroma.site.app  # noqa: F401  # the whole house
