"""Who somebody is on this machine: a folder with their key and where it was enrolled.

`PAROMA_HOME` (else `~/.config/paroma`) holds a folder for each profile; `PAROMA_PROFILE` (else `default`) names the one
that is used. Only its owner can read it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from paroma.kernel import canonical, ids
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, Refused

HOME: Final = "PAROMA_HOME"
CHOSEN: Final = "PAROMA_PROFILE"
DEFAULT: Final = "default"
KEY: Final = "key.pem"
FILE: Final = "profile.json"


class NotLoggedIn(Refused):
    """There is no such profile on this machine."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"nobody is logged in as profile `{name}`",
            do="run `paroma login` with the line that the hub's operator, or your hospital's site, gave you",
        )


class ProfileUnsafe(Refused):
    """Others can write the profile: they could send its owner to a hub of their own."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where somebody's key was enrolled, and as whom. authority: PEM of the authority of the TLS certificate; None on
    this machine. place: the federation's or the site's name.
    """

    origin: str
    authority: str | None
    person: str
    name: str
    role: str
    site: str | None
    place: str


def folder(environ: Mapping[str, str], name: str | None = None) -> Path:
    """The folder of the profile `name`, or of the one that the environment chooses. Raises BadInput."""
    chosen = ids.name(name or environ.get(CHOSEN) or DEFAULT)
    home = environ.get(HOME)
    return (Path(home) if home else Path.home() / ".config" / "paroma") / chosen


def load(where: Path) -> Profile:
    """The profile in this folder. Raises NotLoggedIn, ProfileUnsafe, BadInput."""
    file = where / FILE
    try:
        content, mode = file.read_bytes(), file.stat().st_mode
    except FileNotFoundError:
        raise NotLoggedIn(where.name) from None
    if mode & 0o022:
        raise ProfileUnsafe(f"others can write `{file}`", do="look at what stands in it, then `chmod 600` it")
    try:
        return canonical.decode_as(content, Profile)
    except BadInput as problem:
        raise BadInput(f"`{file}` cannot be read", do="log in again with a new line") from problem


def save(where: Path, profile: Profile, disk: Disk) -> None:
    """Keep the profile, readable by its owner only. Raises OSError."""
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk.replace(where / FILE, canonical.encode(profile) + b"\n", mode=0o600)
