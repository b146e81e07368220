"""The one way out. Every request of the platform goes through a `Network`; the simulation has its own.

`HttpsNetwork` reaches the origins that it was given and no other, follows no redirect, reads no more than it was told
to, keeps no cookie, and goes through whatever proxy the hospital has set (`HTTPS_PROXY`, `NO_PROXY`). `LoopbackNetwork`
is the same without TLS, for a program on this very machine.
"""

import asyncio
import ssl
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self, cast
from urllib.parse import quote, urlsplit

from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import printable
from paroma.kernel.wire import proxies
from paroma.kernel.wire.http1 import NotHttp, Reader, Reply, ReplyTooLong, head

MOST_REPLY_BYTES: Final = 64 << 20
CONNECT_SECONDS: Final = 10.0
EYEBALLS_SECONDS: Final = 0.25  # until the next address of a host is tried beside the first (RFC 8305)
MOST_CONNECTIONS: Final = 64
MOST_IDLE: Final = 16  # connections kept for an origin
IDLE_SECONDS: Final = 60.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_USUAL_PORT: Final = {"https": 443, "http": 80}
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_ALWAYS: Final = (("Accept", "*/*"), ("Accept-Encoding", "identity"), ("User-Agent", "paroma"))
_SAFE: Final = "/?%:@!$&'()*+,;=~-._[]"  # as it stands in an address; only what is not ASCII is written otherwise


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


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader: Reader | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self.idle_since = 0.0  # of the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def over_tls(self, trust: ssl.SSLContext, host: str) -> None:
        """From here on everything goes through TLS, to `host`."""
        loop = asyncio.get_running_loop()
        inner = await loop.start_tls(self._there(), self, trust, server_hostname=host)
        if inner is None:
            raise ConnectionResetError("the connection closed while TLS began")
        self._transport = inner

    async def exchange(self, content: bytes, reader: Reader) -> Reply:
        """Send the bytes of one request; its reply. Raises NotHttp, ReplyTooLong, OSError."""
        self._reader, self._reply = reader, asyncio.get_running_loop().create_future()
        transport = self._there()
        transport.write(content)
        try:
            reply = await self._reply
        finally:
            self._reader = self._reply = None
        if transport.get_write_buffer_size():  # it was answered before it was sent: the rest would be the next request
            self.close()
        return reply

    @property
    def open(self) -> bool:
        """Whether a request could be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """End it, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._reply is None or self._reply.done():
            self.close()  # nothing was asked: whatever this is, no later request may take it for its reply
            return
        try:
            reply = self._reader.feed(data)
        except BadInput as problem:
            self._reply.set_exception(problem)
            self.close()
            return
        if reply is not None:
            self._reply.set_result(reply)
            if not reply.again:
                self.close()

    def eof_received(self) -> None:
        if self._reader is not None and self._reply is not None and not self._reply.done():
            try:
                self._reply.set_result(self._reader.end())
            except BadInput as problem:
                self._reply.set_exception(problem)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc or ConnectionResetError("the connection closed"))
        self._transport = None

    def _there(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionResetError("the connection closed")
        return self._transport


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a request goes: the origin, and its parts."""

    origin: str
    host: str
    port: int
    named: str  # the value of `Host`


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
        proxy: Callable[[str], str | None],
        most_reply_bytes: int,
    ) -> None:
        """origin_of: reads an address, and refuses every other kind of it. trust: None for no TLS. proxy: of a host."""
        self._origin_of = origin_of
        self._allowed = frozenset(origin_of(address) for address in allowed)
        self._trust = trust
        self._proxy = proxy
        self._most = most_reply_bytes
        self._idle: dict[str, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._turns = asyncio.Semaphore(MOST_CONNECTIONS)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request`; its reply, whatever its status."""
        where = self._origin_of(request.url)
        if where not in self._allowed:
            raise OriginNotAllowed(
                f"`{printable(where)}` is not among the addresses this program talks to",
                do="name it in the settings if it should be",
            )
        content, parts = _content(request, where)
        try:
            async with asyncio.timeout(request.timeout), self._turns:
                reply = await self._exchange(request, content, parts)
        except TimeoutError as problem:
            raise PeerUnavailable(
                f"no reply from `{where}` within {request.timeout:g} s", do="repeat the request"
            ) from problem
        except (NotHttp, OSError) as problem:
            raise PeerUnavailable(f"the line to `{where}` broke", do="repeat the request") from problem
        except ReplyTooLong as problem:
            raise ReplyRefused(
                f"the reply of `{where}` is longer than {self._most} bytes", do="ask for less at once"
            ) from problem
        if 300 <= reply.status < 400:  # HTTP
            raise ReplyRefused(
                f"`{where}` sends this request elsewhere", do="use the address that it names, if you trust it"
            )
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise ReplyRefused(f"`{where}` compressed its reply unasked", do="look at the proxy between")
        return HttpResponse(status=reply.status, headers=MappingProxyType(reply.headers), body=reply.body)

    async def _exchange(self, request: HttpRequest, content: bytes, where: _Where) -> Reply:
        connection = self._kept(where.origin) or await self._connect(where, min(CONNECT_SECONDS, request.timeout))
        self._busy.add(connection)
        try:
            reply = await connection.exchange(content, Reader(request.method, self._most))
        except BaseException:  # cut off in the middle: what comes later belongs to nobody
            connection.close()
            raise
        finally:
            self._busy.discard(connection)
        idle = self._idle.setdefault(where.origin, [])
        if connection.open and len(idle) < MOST_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            idle.append(connection)
        else:
            connection.close()
        return reply

    def _kept(self, origin: str) -> _Connection | None:
        """A connection that stands: the one that was used last."""
        idle = self._idle.get(origin, [])
        youngest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.open and connection.idle_since > youngest:
                return connection
            connection.close()
        return None

    async def _connect(self, where: _Where, seconds: float) -> _Connection:
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                connection = await self._reach(where)
                if self._trust is not None:
                    await connection.over_tls(self._trust, where.host)
        except ssl.SSLCertVerificationError as problem:
            raise PeerNotTrusted(
                f"the certificate of `{where.origin}` is not trusted",
                do="check the address and the authority that signs for it",
            ) from problem
        except OSError as problem:  # TimeoutError too
            raise PeerUnavailable(
                f"`{where.origin}` cannot be reached", do="check the network and the proxy, then repeat"
            ) from problem
        finally:
            if connection is not None and sys.exc_info()[0] is not None:
                connection.close()
        return connection

    async def _reach(self, where: _Where) -> _Connection:
        """A connection on which nothing was said yet, or through the proxy. Raises OSError, PeerUnavailable."""
        loop = asyncio.get_running_loop()
        named = self._proxy(where.host)
        if named is None:
            _, connection = await loop.create_connection(
                _Connection, where.host, where.port, happy_eyeballs_delay=EYEBALLS_SECONDS
            )
            return connection
        proxy = proxies.parse(named)
        _, connection = await loop.create_connection(_Connection, proxy.host, proxy.port)
        target = f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"
        asked = head("CONNECT", target, target, proxy.headers, None)
        try:
            reply = await connection.exchange(asked, Reader("CONNECT", self._most))
        except NotHttp as problem:
            connection.close()
            raise PeerUnavailable("the proxy does not answer as one", do="check `HTTPS_PROXY`") from problem
        if reply.status >= 300:  # HTTP
            connection.close()
            raise PeerUnavailable(
                f"the proxy answers {reply.status} to the way to `{where.origin}`",
                do="ask whoever runs the proxy to let this address through",
            )
        return connection

    async def close(self) -> None:
        """End all connections."""
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop closes their sockets

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _content(request: HttpRequest, where: str) -> tuple[bytes, _Where]:
    """The bytes of a request, and where they go. Raises ReplyRefused for what is none."""
    parts = urlsplit(request.url)
    try:
        host = (parts.hostname or "").encode("idna").decode("ascii")
        target = quote(parts.path or "/", safe=_SAFE) + ("?" + quote(parts.query, safe=_SAFE) if parts.query else "")
        named = f"[{host}]" if ":" in host else host
        if parts.port is not None and parts.port != _USUAL_PORT.get(parts.scheme):
            named += f":{parts.port}"
        length = len(request.body) if request.body or request.method in _WITH_BODY else None
        first = head(request.method, target, named, (*_ALWAYS, *request.headers), length)
    except (BadInput, UnicodeError) as problem:
        raise ReplyRefused(f"the exchange with `{where}` is not HTTP", do="check the address") from problem
    port = parts.port or _USUAL_PORT[parts.scheme]
    return first + request.body, _Where(where, host, port, named)


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
            proxy=proxies.of_environment,
            most_reply_bytes=most_reply_bytes,
        )


class LoopbackNetwork(_HttpNetwork):
    """To a program on this very machine, without TLS: nothing leaves the machine, so nobody listens."""

    def __init__(self, allowed: Collection[str], *, most_reply_bytes: int = MOST_REPLY_BYTES) -> None:
        """allowed: origins such as `http://127.0.0.1:8444`."""
        super().__init__(
            allowed,
            origin_of=loopback_origin,
            trust=None,
            proxy=lambda _host: None,
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
    from httpx import create_ssl_context  # slow to import, and whoever knows their hub's authority never needs it

    return create_ssl_context()


def trusting_nobody_yet() -> ssl.SSLContext:
    """Check no certificate at all.

    Only for fetching a hub's own certificate when joining: what comes back is compared with the fingerprint in the
    invitation before anything is done with it, and every later request uses `trusting`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
