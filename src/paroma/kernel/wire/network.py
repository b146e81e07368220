"""The one way out. Every request of the platform goes through a `Network`; the simulation has its own.

`HttpsNetwork` reaches the origins that it was given and no other, follows no redirect, reads no more than it was told
to, keeps no cookie, and goes through whatever proxy the hospital has set (`HTTPS_PROXY`, `NO_PROXY`). `LoopbackNetwork`
is the same without TLS, for a program on this very machine.
"""

import asyncio
import contextlib
import io
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import urlsplit

from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import printable
from paroma.kernel.wire import proxies

if TYPE_CHECKING:  # aiohttp takes 0.1 s to import: only a program that sends something pays for it
    import aiohttp

MOST_REPLY_BYTES: Final = 64 << 20
CONNECT_SECONDS: Final = 10.0  # for one address of a host, TLS included
MOST_CONNECTIONS: Final = 64
IDLE_SECONDS: Final = 60.0
_AT_ONCE: Final = 1 << 20  # bytes of a body that are handed over in one piece
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ALWAYS: Final = {"Accept-Encoding": "identity", "User-Agent": "paroma"}


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


class _Unasked(Exception):
    """A reply was there before its request."""


class _HttpNetwork:
    """What both real networks have in common. Belongs to one loop; close it there.

    Connections are kept and used again: a request over one that stands costs a tenth of a new one. A request whose
    connection breaks is not repeated here: whether it had an effect is not known.
    """

    def __init__(
        self,
        allowed: Collection[str],
        *,
        origin_of: Callable[[str], str],
        trust: ssl.SSLContext | None,
        most_reply_bytes: int,
    ) -> None:
        """origin_of: reads an address, and refuses every other kind of it. trust: None for no TLS."""
        self._origin_of = origin_of
        self._allowed = frozenset(origin_of(address) for address in allowed)
        self._trust = trust
        self._most = most_reply_bytes
        self._session: aiohttp.ClientSession | None = None  # made by the first request, in its loop
        self._proxies: dict[str, str | None] = {}  # by origin, once there is a session

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request`; its reply, whatever its status."""
        where = self._origin_of(request.url)
        if where not in self._allowed:
            raise OriginNotAllowed(
                f"`{printable(where)}` is not among the addresses this program talks to",
                do="name it in the settings if it should be",
            )
        session = self._session or await self._open()
        import aiohttp

        try:
            async with session.request(
                request.method,
                request.url,
                headers=request.headers,
                # a longer one goes piece by piece, so that other requests get their turn
                data=io.BytesIO(request.body) if len(request.body) > _AT_ONCE else request.body or None,
                allow_redirects=False,
                proxy=self._proxies[where],
                timeout=aiohttp.ClientTimeout(
                    total=request.timeout, sock_connect=min(CONNECT_SECONDS, request.timeout)
                ),
            ) as reply:
                return await self._read(reply, where)
        except _Unasked as problem:
            await self.close()  # aiohttp has put that connection back among the others already, so all of them go
            raise PeerUnavailable(f"`{where}` answers before it is asked", do="repeat the request") from problem
        except aiohttp.ClientConnectorCertificateError as problem:
            raise PeerNotTrusted(
                f"the certificate of `{where}` is not trusted",
                do="check the address and the authority that signs for it",
            ) from problem
        except aiohttp.ClientHttpProxyError as problem:
            raise PeerUnavailable(
                f"the proxy answers {problem.status} to the way to `{where}`",
                do="ask whoever runs the proxy to let this address through",
            ) from problem
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as problem:
            raise PeerUnavailable(
                f"`{where}` cannot be reached", do="check the network and the proxy, then repeat"
            ) from problem
        except TimeoutError as problem:
            raise PeerUnavailable(
                f"no reply from `{where}` within {request.timeout:g} s", do="repeat the request"
            ) from problem
        except ValueError as problem:  # an address, a method or a header that would break out of its line
            raise ReplyRefused(f"the exchange with `{where}` is not HTTP", do="check the address") from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise PeerUnavailable(f"the line to `{where}` broke", do="repeat the request") from problem

    async def _read(self, reply: "aiohttp.ClientResponse", where: str) -> HttpResponse:
        """The reply with its body. Leaving early closes the connection. Raises ReplyRefused, PeerUnavailable."""
        if reply.status < 200:  # HTTP
            raise PeerUnavailable(f"`{where}` changes to another protocol unasked", do="check the address")
        if 300 <= reply.status < 400:  # HTTP
            raise ReplyRefused(
                f"`{where}` sends this request elsewhere", do="use the address that it names, if you trust it"
            )
        headers: dict[str, str] = {}
        for name, value in reply.headers.items():
            lower = name.lower()
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
        if headers.get("content-encoding", "identity") != "identity" or headers.get(
            "transfer-encoding", "chunked"
        ).lower() not in {"chunked", "identity"}:
            raise ReplyRefused(f"`{where}` compressed its reply unasked", do="look at the proxy between")
        body = bytearray()
        if reply.method != "HEAD" and (reply.content_length or 0) > self._most:
            raise self._too_long(where)
        async for piece in reply.content.iter_any():
            if len(body) + len(piece) > self._most:
                raise self._too_long(where)
            body += piece
        return HttpResponse(status=reply.status, headers=MappingProxyType(headers), body=bytes(body))

    def _too_long(self, where: str) -> ReplyRefused:
        return ReplyRefused(f"the reply of `{where}` is longer than {self._most} bytes", do="ask for less at once")

    async def _open(self) -> "aiohttp.ClientSession":
        if "aiohttp" not in sys.modules:
            await asyncio.to_thread(_import)  # meanwhile this loop does what else there is
        import aiohttp

        self._proxies = {one: proxies.of_environment(*_place(one)) for one in self._allowed}
        if self._session is None:  # another request may have been faster
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=MOST_CONNECTIONS,
                    keepalive_timeout=IDLE_SECONDS,
                    ssl=self._trust if self._trust is not None else True,
                ),
                headers=_ALWAYS,
                skip_auto_headers=("Content-Type",),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                middlewares=(_exchange,),
            )
        return self._session

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _place(origin: str) -> tuple[str, int]:
    """Host and port of an origin in its one form."""
    parts = urlsplit(origin)
    return parts.hostname or "", parts.port or 0


def _import() -> None:
    import aiohttp  # noqa: F401


async def _exchange(request: "aiohttp.ClientRequest", send: "aiohttp.ClientHandlerType") -> "aiohttp.ClientResponse":
    """Send a request once, and take no reply that is another's.

    aiohttp would repeat what it holds to be harmless where the connection broke; a proof of who sends it counts once.
    And it would take for the reply what came over a kept connection while nobody asked (its issue 13656). A true reply
    takes at least one turn of the loop: what is there without one was there before.
    """
    import aiohttp

    turns: list[bool] = []
    asyncio.get_running_loop().call_soon(turns.append, True)
    try:
        reply = await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as problem:
        raise aiohttp.ClientConnectionError("the connection broke") from problem
    if not turns:
        reply.close()
        raise _Unasked
    return reply


async def close(network: Network) -> None:
    """End the connections of a network that keeps any: a real one. The simulation's needs no end."""
    if isinstance(network, _HttpNetwork):
        await network.close()


@contextlib.asynccontextmanager
async def closing(network: Network) -> AsyncIterator[Network]:
    """`network`, whose connections end with the block."""
    try:
        yield network
    finally:
        await close(network)


class HttpsNetwork(_HttpNetwork):
    """The real network, over TLS."""

    def __init__(
        self, allowed: Collection[str], *, trust: ssl.SSLContext, most_reply_bytes: int = MOST_REPLY_BYTES
    ) -> None:
        """allowed: origins such as `https://hub.example:8443`. trust: whose certificates count, see `trusting`."""
        super().__init__(allowed, origin_of=origin, trust=trust, most_reply_bytes=most_reply_bytes)


class LoopbackNetwork(_HttpNetwork):
    """To a program on this very machine, without TLS: nothing leaves the machine, so nobody listens."""

    def __init__(self, allowed: Collection[str], *, most_reply_bytes: int = MOST_REPLY_BYTES) -> None:
        """allowed: origins such as `http://127.0.0.1:8444`."""
        super().__init__(allowed, origin_of=loopback_origin, trust=None, most_reply_bytes=most_reply_bytes)


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


def trusting_nobody_yet() -> ssl.SSLContext:
    """Check no certificate at all.

    Only for fetching a hub's own certificate when joining: what comes back is compared with the fingerprint in the
    invitation before anything is done with it, and every later request uses `trusting`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
