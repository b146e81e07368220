"""What an operator sets at a hub. Choosing another database or certificate is configuration, never another code path."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from paroma.kernel.errors import BadInput
from paroma.trust.identity.oidc import ProviderSettings
from paroma.trust.keys import names

FILE = "hub.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Settings of `paroma hub`: from `hub.toml` in its folder and from variables `PAROMA_HUB_...`.

    folder: keys, certificates, uploads, and the database if none is named. url: the origin under which members reach
    the hub. certificate, key, authority: PEM files of a certificate of your own; the hub makes its own where they are
    not set. signing_key: name of the key that the hub signs with, such as `pkcs11:...`, chosen before the first member joins;
    empty: `keys/hub.pem`. patience_seconds: how long a round waits for a silent site before it goes on without it.
    offline_seconds: how long nothing may be heard of a site, no request of it being here, until it is offline and no round waits
    for it. login: the OpenID Provider at which people may sign in.
    """

    folder: Path
    name: str
    url: str
    host: str = "127.0.0.1"
    port: int = 8443
    store: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    signing_key: str = ""
    patience_seconds: float = 10.0
    offline_seconds: float = 5.0
    login: ProviderSettings = field(default_factory=ProviderSettings)

    @property
    def database(self) -> str:
        """Address of the database."""
        return self.store or f"sqlite:///{self.folder / 'hub.db'}"

    def __post_init__(self) -> None:
        given = [self.certificate, self.key, self.authority]
        if any(given) and not all(given):
            raise BadInput(
                "certificate, key and authority are not all set", do="set all three, or none for the hub's own"
            )
        if any(text.endswith(("=officer", "=desk")) for text in self.login.roles):
            raise BadInput(
                "`login.roles` gives a role that is none at a hub",
                do="officers and the desk belong to a site's settings",
            )
        if self.signing_key:
            names.parse(self.signing_key)
        for name, example in (("patience_seconds", 10), ("offline_seconds", 5)):
            if not getattr(self, name) > 0:
                raise BadInput(f"`{name}` is not above 0", do=f"set it to a number of seconds such as {example}")


def to_toml(settings: HubSettings) -> str:
    """The file that `paroma hub init` writes: what was chosen, one line each."""
    lines = [
        f"name = {_text(settings.name)}",
        f"url = {_text(settings.url)}",
        f"host = {_text(settings.host)}",
        f"port = {settings.port}",
    ]
    if settings.store:
        lines.append(f"store = {_text(settings.store)}")
    if settings.signing_key:
        lines.append(f"signing_key = {_text(settings.signing_key)}")
    return "\n".join(["# Settings of this hub. Every key is described in the reference.", 'folder = "."', *lines, ""])


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, so a quote in a name stays a quote."""
    return json.dumps(value, ensure_ascii=False)
