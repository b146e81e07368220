"""The proxy that a hospital has set in the environment, as every other program there reads it.

`HTTPS_PROXY` or `ALL_PROXY` name it, `NO_PROXY` the hosts that are reached without; the lower-case names count first.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

_THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class ProxyInvalid(BadInput):
    """The environment names a proxy in a form that is not understood."""

    def __init__(self, named: str) -> None:
        super().__init__(
            f"`{printable(named)}` names no proxy", do="set `HTTPS_PROXY` to the form `http://host:port`, or unset it"
        )


def of_environment(host: str, port: int) -> str | None:
    """The address of the proxy for `host` that this process's environment names, or None. Raises ProxyInvalid."""
    from urllib.request import getproxies_environment  # slow to import, and `paroma --help` asks nobody

    return of(host, port, getproxies_environment())


def of(host: str, port: int, named: Mapping[str, str]) -> str | None:
    """The address of the proxy for `host`, or None. No proxy stands between a machine and itself. Raises ProxyInvalid.

    named: addresses by scheme, and under `no` the hosts that go without: see `urllib.request.getproxies_environment`.
    """
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed forgot it

    proxy = named.get("https") or named.get("all")
    if proxy is None or host in _THIS_MACHINE:
        return None
    without = [part for part in (name.strip() for name in named.get("no", "").split(",")) if part]
    listed = {**named, "no": "*" if "*" in without else ",".join(without)}
    if any(proxy_bypass_environment(name, listed) for name in (host, f"{host}:{port}")):
        return None
    return _checked(proxy if "://" in proxy else f"http://{proxy}")


def _checked(proxy: str) -> str:
    """`http://host:port` or `http://name:word@host:port`, nothing else.

    Not `https://`: the client would ask the proxy for a certificate of the hub's own authority, and no proxy has one.
    """
    try:
        parts = urlsplit(proxy)
        there = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError as problem:
        raise ProxyInvalid("") from problem
    if parts.scheme != "http" or not there:
        raise ProxyInvalid(f"{parts.scheme}://{parts.hostname or ''}")  # without the password that may stand in it
    return proxy
