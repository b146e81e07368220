"""The proxy that a hospital has set in the environment, as every other program there reads it.

`HTTPS_PROXY` or `ALL_PROXY` name it, `NO_PROXY` the hosts that are reached without; the lower-case names count first.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

_NAMES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PORT: Final = 80


class ProxyInvalid(BadInput):
    """The environment names a proxy in a form that is not understood."""

    def __init__(self, named: str) -> None:
        super().__init__(
            f"`{printable(named)}` names no proxy", do="set `HTTPS_PROXY` to the form `http://host:port`, or unset it"
        )


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens, and what it wants to be told."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...]


def of_environment(host: str) -> str | None:
    """The address of the proxy for `host` that this process's environment names, or None."""
    return of(host, os.environ)


def of(host: str, environ: Mapping[str, str]) -> str | None:
    """The address of the proxy for `host`, or None. No proxy stands between a machine and itself."""
    named = next((environ[name] for name in _NAMES if environ.get(name)), None)
    if named is None or host in _THIS_MACHINE:
        return None
    return None if _goes_without(host, environ.get("no_proxy") or environ.get("NO_PROXY") or "") else named


def parse(named: str) -> Proxy:
    """Read the address of a proxy: `http://host:port`, or `http://name:word@host:port`. Raises ProxyInvalid."""
    try:
        parts = urlsplit(named if "://" in named else f"http://{named}")
        port = parts.port or _PORT
    except ValueError as problem:
        raise ProxyInvalid("") from problem
    if parts.scheme != "http" or not parts.hostname:
        raise ProxyInvalid(f"{parts.scheme}://{parts.hostname or ''}")  # without the password that may stand in it
    headers: tuple[tuple[str, str], ...] = ()
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers = (("Proxy-Authorization", f"Basic {base64.b64encode(secret).decode()}"),)
    return Proxy(parts.hostname, port, headers)


def _goes_without(host: str, listed: str) -> bool:
    """Whether `NO_PROXY` names the host, a domain that it lies in, or all (`*`). Ports in the list are passed over."""
    names = [name.strip().lower().lstrip(".") for name in listed.split(",")]
    plain = [name if name.count(":") != 1 else name.partition(":")[0] for name in names]
    return "*" in plain or any(name and (host.lower() == name or host.lower().endswith(f".{name}")) for name in plain)
