"""What an operator sets at a hub. Choosing another database or certificate is configuration, never another code path."""

import json
from dataclasses import dataclass
from pathlib import Path

from paroma.kernel.errors import BadInput

FILE = "hub.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Settings of `paroma hub`: from `hub.toml` in its folder and from variables `PAROMA_HUB_...`.

    folder: keys, certificates, uploads, and the database if none is named. url: the origin under which members reach
    the hub. certificate, key, authority: PEM files of a certificate of your own; the hub makes its own where they are
    not set. patience_seconds: how long a round waits for a silent site before it goes on without it. offline_seconds: how long
    nothing may be heard of a site, no request of it being here, until it is offline and no round waits for it.
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
    patience_seconds: float = 10.0
    offline_seconds: float = 5.0

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
    return "\n".join(["# Settings of this hub. Every key is described in the reference.", 'folder = "."', *lines, ""])


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are among TOML's, so a quote in a name stays a quote."""
    return json.dumps(value, ensure_ascii=False)
