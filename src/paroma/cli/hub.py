"""`paroma hub`: at the hub's own machine, on its folder."""

from pathlib import Path
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json

APP = show.app("The meeting point: make it, run it, invite sites and people.")
Folder = Annotated[Path, typer.Option("--folder", help="The hub's folder.")]
HERE = Path("hub")


@APP.command()
def init(
    name: Annotated[str, typer.Argument(help="What the federation is called.")],
    folder: Folder = HERE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8443,
    url: Annotated[str | None, typer.Option(help="Address under which members reach it, if another.")] = None,
    *,
    json: Json = False,
) -> None:
    """Make a hub's folder: settings, keys, an empty database. Safe to repeat."""
    from paroma.hub import commands

    made = commands.init(folder, name, host=host, port=port, url=url)
    text = f"{made.name} lies in {folder}\n  next: paroma hub run --folder {folder}"
    show.done({"name": made.name, "url": made.url, "folder": str(folder)}, text, json=json)


@APP.command()
def run(folder: Folder = HERE, *, json: Json = False) -> None:
    """Serve until Ctrl-C."""
    from paroma.hub import commands
    from paroma.hub.settings import HubSettings

    def ready(settings: HubSettings) -> None:
        show.done({"url": settings.url}, f"{settings.name} listens at {settings.url}", json=json)

    commands.run(folder, ready)


@APP.command()
def invite(
    folder: Folder = HERE,
    owner: Annotated[str | None, typer.Option(help="Whom the site must belong to.")] = None,
    *,
    json: Json = False,
) -> None:
    """Print one line that lets one site join. Pass it on like a password."""
    from paroma.hub import commands

    line = commands.invite(folder, owner)
    show.done({"invitation": line}, line, json=json)


@APP.command("enrol-link")
def enrol_link(
    name: Annotated[str, typer.Argument(help="The person's name.")],
    role: Annotated[str, typer.Option(help="scientist, committee, operator or auditor.")] = "scientist",
    folder: Folder = HERE,
    *,
    json: Json = False,
) -> None:
    """Print one line that lets one person log in. Pass it on like a password."""
    from paroma.hub import commands

    line = commands.enrol_link(folder, name, role)
    show.done({"line": line, "name": name, "role": role}, line, json=json)
