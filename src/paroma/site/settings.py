"""What a hospital sets at its site. What joining brought (who the hub is, who this site is) lies beside it in `member.json`."""

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import SiteId

FILE = "site.toml"
MEMBER = "member.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Settings of `paroma site`: from `site.toml` in its folder and from variables `PAROMA_SITE_...`.

    folder: keys, vault, and the database if none is named. replicas: folders for the vault's root key, at least two, on
    different disks in production. house: sentences of the house rules that are ticked. recheck_seconds: how often the whole
    federation log is read again. worker_seconds: the longest that one contribution may compute.
    """

    folder: Path
    title: str
    host: str = "127.0.0.1"
    port: int = 8480
    url: str = ""
    store: str | None = None
    replicas: tuple[str, ...] = ()
    house: tuple[str, ...] = ()
    phone: str = ""
    hours: str = ""
    recheck_seconds: float = 30.0
    worker_seconds: float = 60.0

    @property
    def database(self) -> str:
        """Address of the database."""
        return self.store or f"sqlite:///{self.folder / 'site.db'}"

    @property
    def origin(self) -> str:
        """Under which people reach the site's pages."""
        return self.url or f"http://{self.host}:{self.port}"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Where the vault's root key lies."""
        if self.replicas:
            return tuple(Path(one) for one in self.replicas)
        return (self.folder / "root-1", self.folder / "root-2")

    def __post_init__(self) -> None:
        if self.replicas and len(self.replicas) < 2:  # a key on one disk dies with it
            raise BadInput("`replicas` names one folder", do="name at least two, on different disks")


class Membership(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What joining brought. log_vkey: of the federation log. hub: origin. authority: PEM of the hub's certificate authority."""

    site: SiteId
    title: str
    owner: str
    hub: str
    hub_jwk: dict[str, str]
    log_vkey: str
    authority: str


def to_toml(settings: SiteSettings) -> str:
    """The file that joining writes."""
    lines = [f"title = {_text(settings.title)}", f"host = {_text(settings.host)}", f"port = {settings.port}"]
    return "\n".join(["# Settings of this site. Every key is described in the reference.", 'folder = "."', *lines, ""])


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, so a quote in a title stays a quote."""
    return json.dumps(value, ensure_ascii=False)
