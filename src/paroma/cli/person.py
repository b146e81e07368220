"""`paroma login` and `paroma whoami`."""

import asyncio
import os
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness
from paroma.sdk import profile as profiles
from paroma.sdk.profile import Profile

LOGIN = show.app("Become somebody here.")
WHOAMI = show.app("Who you are here.")


@LOGIN.command()
def login(
    line: Annotated[str, typer.Argument(help="The `paroma-login:` line that you were given.")],
    profile: ProfileName = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make another key, for another role.")] = False,
    *,
    json: Json = False,
) -> None:
    """Make a key on this machine and have it enrolled. Safe to repeat with the same line."""
    from paroma.sdk.login import login as enrol
    from paroma.trust.identity import login_line

    where = profiles.folder(os.environ, profile)
    made = asyncio.run(
        enrol(
            login_line.parse(line),
            where,
            clock=SystemClock(),
            randomness=OsRandomness(),
            disk=SystemDisk(),
            new_key=new_key,
            say=show.say,
        )
    )
    _show(where.name, made, json=json)


@WHOAMI.command()
def whoami(profile: ProfileName = None, *, json: Json = False) -> None:
    """Say who you are here, and where. Asks nobody."""
    where = profiles.folder(os.environ, profile)
    _show(where.name, profiles.load(where), json=json)


def _show(name: str, who: Profile, *, json: bool) -> None:
    value = {
        "profile": name,
        "person": who.person,
        "name": who.name,
        "role": who.role,
        "site": who.site,
        "origin": who.origin,
        "place": who.place,
    }
    text = f"{who.name}, {who.role}, at {who.place or who.origin} ({who.origin}), profile {name}"
    show.done(value, text, json=json)
