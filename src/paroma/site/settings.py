"""What a hospital sets at its site. What joining brought (who the hub is, who this site is) lies beside it in `member.json`."""

import json
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from paroma.kernel import settings as kernel_settings
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import SiteId, printable
from paroma.trust.identity.oidc import ProviderSettings
from paroma.trust.keys import names

FILE = "site.toml"
MEMBER = "member.json"
LOCALTIME = Path("/etc/localtime")  # where a machine keeps its time zone


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """Settings of `paroma site`: from `site.toml` in its folder and from variables `PAROMA_SITE_...`.

    folder: keys, vault, and the database if none is named. replicas: folders for the vault's root key, at least two, on
    different disks in production. signing_key: name of the key that the site signs with, such as `pkcs11:...`, chosen when it
    joins; empty: `keys/site.pem`. root_keys: names of keys that wrap the vault's root key: the first one wraps, all unwrap; none:
    it lies in the replicas as it is. timezone: of the hours of house rules, and of the times that patients read, such as
    `Europe/Berlin`; empty: the machine's. phone, hours: of the help line on patients' pages; empty: they are sent to the desk.
    recheck_seconds: how often the whole federation log is read again. worker_seconds: the longest that one contribution may
    compute. login: the OpenID Provider at which the site's people may sign in.
    """

    folder: Path
    title: str
    host: str = "127.0.0.1"
    port: int = 8480
    url: str = ""
    store: str | None = None
    replicas: tuple[str, ...] = ()
    signing_key: str = ""
    root_keys: tuple[str, ...] = ()
    timezone: str = ""
    phone: str = ""
    hours: str = ""
    recheck_seconds: float = 30.0
    worker_seconds: float = 60.0
    login: ProviderSettings = field(default_factory=ProviderSettings)

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

    @property
    def zone(self) -> tzinfo:
        """The hospital's: `timezone`, else the machine's, else UTC."""
        return _zone(self.timezone) if self.timezone else machine_zone(LOCALTIME)

    def __post_init__(self) -> None:
        if any(not text.endswith(("=officer", "=desk", "=auditor")) for text in self.login.roles):
            raise BadInput(
                "`login.roles` gives a role that is none at a site", do="give `officer`, `desk` and `auditor` only"
            )
        try:
            _ = self.zone
        except (ZoneInfoNotFoundError, ValueError, OSError) as problem:
            raise BadInput(
                f"`timezone` names no time zone that this machine knows: `{printable(self.timezone)}`",
                do="write it as in `Europe/Berlin`, or install the system's `tzdata`",
            ) from problem
        if self.replicas and len(self.replicas) < 2:  # a key on one disk dies with it
            raise BadInput("`replicas` names one folder", do="name at least two, on different disks")
        for one in (self.signing_key, *self.root_keys):
            if one or one in self.root_keys:
                names.parse(one)


def machine_zone(localtime: Path) -> tzinfo:
    """The time zone of this machine, by its name where the file is a link to the zone's own; UTC where there is none."""
    try:
        _, found, name = str(localtime.resolve()).partition("/zoneinfo/")
        if found:
            return _zone(name)
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return UTC


def _zone(name: str) -> tzinfo:
    return UTC if name in {"UTC", "Etc/UTC", "Universal", "Zulu"} else ZoneInfo(name)


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
    if settings.signing_key:
        lines.append(f"signing_key = {_text(settings.signing_key)}")
    return "\n".join(["# Settings of this site. Every key is described in the reference.", 'folder = "."', *lines, ""])


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, so a quote in a title stays a quote."""
    return json.dumps(value, ensure_ascii=False)


def load(folder: Path) -> SiteSettings:
    """The settings in a site's folder and in the environment. Raises SettingInvalid."""
    import os

    environ = {name: value for name, value in os.environ.items() if name.startswith("PAROMA_SITE_")}
    return kernel_settings.load(SiteSettings, folder / FILE, environ, prefix="PAROMA_SITE_")


def member_of(settings: SiteSettings) -> Membership:
    """What joining brought. Raises BadInput where the site has not joined."""
    try:
        return msgspec.json.decode((settings.folder / MEMBER).read_bytes(), type=Membership)
    except FileNotFoundError as problem:
        raise BadInput(
            f"`{settings.folder}` has not joined a federation", do="run `paroma site join INVITATION` first"
        ) from problem
