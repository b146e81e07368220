"""The one way out. Every request of the platform goes through a `Network`; the simulation has its own.

`HttpsNetwork` reaches the origins that it was given and no other, follows no redirect, reads no more than it was told
to, keeps no cookie, and goes through whatever proxy the hospital has set (`HTTPS_PROXY`, `NO_PROXY`). `LoopbackNetwork`
is the same without TLS, for a program on this very machine.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import httpx

from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import printable

MOST_REPLY_BYTES: Final = 64 << 20
CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_THIS_MACHINE: Final = ("all://127.0.0.1", "all://localhost", "all://[::1]")


class OriginNotAllowed(Refused):
    """A request was to go to an address that this program does not talk to."""


class PeerUnavailable(Unavailable):
    """No reply: not reached, cut off, or too late. Whether the request had an effect there is not known."""


class PeerNotTrusted(Unavailable):
    """The other side's certificate does not lead to a trusted one."""


class ReplyRefused(BadInput):
    """The reply is too long, compressed, or a redirect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request. `timeout`: seconds until the whole reply must be here."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    timeout: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """One reply. `headers` have lower-case names; of a name sent twice, the values are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Network(Protocol):
    """Sends a request and waits for its reply."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The reply, whatever its status. Raises PeerUnavailable, PeerNotTrusted, OriginNotAllowed, ReplyRefused."""


class _HttpNetwork:
    """What both real networks have in common. Belongs to one loop; close it there."""

    def __init__(
        self,
        allowed: Collection[str],
        *,
        origin_of: Callable[[str], str],
        trust: ssl.SSLContext,
        through_proxy: bool,
        most_reply_bytes: int,
    ) -> None:
        """origin_of: reads an address, and refuses every other kind of it."""
        self._origin_of = origin_of
        self._allowed = frozenset(origin_of(address) for address in allowed)
        self._most = most_reply_bytes
        self._client = httpx.AsyncClient(
            verify=trust,
            trust_env=through_proxy,
            mounts=dict.fromkeys(_THIS_MACHINE),  # no proxy stands between a machine and itself
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60.0),
            headers={"Accept-Encoding": "identity", "User-Agent": "paroma"},
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request`; its reply, whatever its status."""
        where = self._origin_of(request.url)
        if where not in self._allowed:
            raise OriginNotAllowed(
                f"`{printable(where)}` is not among the addresses this program talks to",
                do="name it in the settings if it should be",
            )
        try:
            async with asyncio.timeout(request.timeout):
                return await self._exchange(request, where)
        except TimeoutError as problem:
            raise PeerUnavailable(
                f"no reply from `{where}` within {request.timeout:g} s", do="repeat the request"
            ) from problem
        except httpx.ConnectError as problem:
            if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                raise PeerNotTrusted(
                    f"the certificate of `{where}` is not trusted",
                    do="check the address and the authority that signs for it",
                ) from problem
            raise PeerUnavailable(
                f"`{where}` cannot be reached", do="check the network and the proxy, then repeat"
            ) from problem
        except httpx.HTTPError as problem:
            raise PeerUnavailable(f"the line to `{where}` broke", do="repeat the request") from problem
        except (httpx.InvalidURL, ValueError, UnicodeError) as problem:
            raise ReplyRefused(f"the exchange with `{where}` is not HTTP", do="check the address") from problem

    async def _exchange(self, request: HttpRequest, where: str) -> HttpResponse:
        waits = httpx.Timeout(request.timeout, connect=min(CONNECT_SECONDS, request.timeout))
        async with self._client.stream(
            request.method, request.url, headers=list(request.headers), content=request.body, timeout=waits
        ) as reply:
            if reply.is_redirect or reply.has_redirect_location:
                raise ReplyRefused(
                    f"`{where}` sends this request elsewhere", do="use the address that it names, if you trust it"
                )
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise ReplyRefused(f"`{where}` compressed its reply unasked", do="look at the proxy between")
            body = bytearray()
            if int(reply.headers.get("content-length", 0)) > self._most:
                raise self._too_long(where)
            async for piece in reply.aiter_raw():
                body += piece
                if len(body) > self._most:
                    raise self._too_long(where)
            headers = {name.lower(): value for name, value in reply.headers.items()}
            return HttpResponse(status=reply.status_code, headers=MappingProxyType(headers), body=bytes(body))

    def _too_long(self, where: str) -> ReplyRefused:
        return ReplyRefused(f"the reply of `{where}` is longer than {self._most} bytes", do="ask for less at once")

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class HttpsNetwork(_HttpNetwork):
    """The real network, over TLS."""

    def __init__(
        self, allowed: Collection[str], *, trust: ssl.SSLContext | None = None, most_reply_bytes: int = MOST_REPLY_BYTES
    ) -> None:
        """allowed: origins such as `https://hub.example:8443`. trust: whose certificates count, see `trusting`."""
        super().__init__(
            allowed,
            origin_of=origin,
            trust=trust if trust is not None else trusting_the_public(),
            through_proxy=True,
            most_reply_bytes=most_reply_bytes,
        )


class LoopbackNetwork(_HttpNetwork):
    """To a program on this very machine, without TLS: nothing leaves the machine, so nobody listens."""

    def __init__(self, allowed: Collection[str], *, most_reply_bytes: int = MOST_REPLY_BYTES) -> None:
        """allowed: origins such as `http://127.0.0.1:8444`."""
        super().__init__(
            allowed,
            origin_of=loopback_origin,
            trust=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # there is no TLS, and loading authorities takes 20 ms
            through_proxy=False,
            most_reply_bytes=most_reply_bytes,
        )


def origin(url: str) -> str:
    """`https://host:port` of `url`, in lower case, the port always there. Raises BadInput.

    Only https, no user, no fragment, no blank or control character.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        parts, port = urlsplit(""), 0
    if (
        parts.scheme != "https"
        or not parts.hostname
        or "@" in parts.netloc
        or parts.fragment
        or not url.isprintable()
        or " " in url
    ):
        raise BadInput(
            f"`{printable(url)}` is no address to talk to", do="give one of the form `https://host:port/path`"
        )
    host = parts.hostname.lower()
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def loopback_origin(url: str) -> str:
    """`http://host:port` of `url`, the port always there, where the host is this very machine. Raises BadInput."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if (
        parts.scheme != "http"
        or parts.hostname not in _LOOPBACK
        or "@" in parts.netloc
        or parts.fragment
        or not url.isprintable()
        or " " in url
    ):
        raise BadInput(
            f"`{printable(url)}` is no address on this machine", do="give one of the form `http://127.0.0.1:port/path`"
        )
    host = parts.hostname
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def trusting(authority: bytes) -> ssl.SSLContext:
    """Trust what the certificates in `authority` (PEM) signed, and nothing else. Raises BadInput."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as problem:
        raise BadInput(
            "this is no certificate in PEM form", do="give the file that begins with `-----BEGIN CERTIFICATE-----`"
        ) from problem
    return context


def trusting_the_public() -> ssl.SSLContext:
    """Trust the public authorities of the web."""
    return httpx.create_ssl_context()


def trusting_nobody_yet() -> ssl.SSLContext:
    """Check no certificate at all.

    Only for fetching a hub's own certificate when joining: what comes back is compared with the fingerprint in the
    invitation before anything is done with it, and every later request uses `trusting`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
