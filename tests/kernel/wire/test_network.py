import asyncio
import base64
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest

from paroma.kernel.errors import BadInput
from paroma.kernel.wire.network import (
    HttpRequest,
    HttpsNetwork,
    LoopbackNetwork,
    OriginNotAllowed,
    PeerNotTrusted,
    PeerUnavailable,
    ReplyRefused,
    closing,
    origin,
    trusting,
    trusting_nobody_yet,
)

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Word: a\r\nx-word: b\r\n\r\nok"


class Server:
    """Answers every request with the same bytes, and remembers what it was sent."""

    def __init__(self, reply, delay=0.0):
        self.reply, self.delay, self.heard, self.url = reply, delay, [], ""

    async def handle(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.heard.append((head, await reader.readexactly(length)))
                await asyncio.sleep(self.delay)
                writer.write(self.reply)
                await writer.drain()
                if b"content-length" not in self.reply.lower():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def talk(authority, tmp_path):
    """Runs one exchange: `talk(reply, lambda network, url: ...)`."""

    @asynccontextmanager
    async def serving(reply, delay, names):
        server = Server(reply, delay)
        listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=authority.serve_as(tmp_path, *names))
        server.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            listening.close()
            await listening.wait_closed()

    def run(reply, exchange, *, delay=0.0, names=("127.0.0.1",), trust=None, allowed=None, most=1000):
        async def course():
            async with serving(reply, delay, names) as server:
                network = HttpsNetwork(
                    allowed if allowed is not None else [server.url],
                    trust=trust or trusting(authority.pem),
                    most_reply_bytes=most,
                )
                async with network:
                    return await exchange(network, server)

        return asyncio.run(course())

    return run


def get(path="/x?y=1", **more):
    async def exchange(network, server):
        return await network.send(HttpRequest(method="GET", url=server.url + path, **more)), server

    return exchange


def test_a_request_and_its_reply_come_over_whole(talk):
    reply, server = talk(PLAIN, get(headers=(("Authorization", "DPoP x"),), body=b"\x00\xffbody"))
    assert (reply.status, reply.body, reply.headers["x-word"]) == (200, b"ok", "a, b")
    head, body = server.heard[0]
    assert head.startswith(b"GET /x?y=1 HTTP/1.1\r\n")
    assert b"authorization: dpop x\r\n" in head.lower()
    assert body == b"\x00\xffbody"


def test_every_status_is_a_reply(talk):
    assert talk(PLAIN.replace(b"200 OK", b"503 No"), get())[0].status == 503


def test_no_cookie_is_kept(talk):
    async def twice(network, server):
        for _ in range(2):
            await network.send(HttpRequest(method="GET", url=server.url))
        return server

    server = talk(PLAIN.replace(b"X-Word: a", b"Set-Cookie: a=b; Path=/"), twice)
    assert [b"cookie" in head.lower() for head, _ in server.heard] == [False, False]


@pytest.mark.promise(3)
def test_nothing_goes_to_an_address_that_was_not_named(talk):
    with pytest.raises(OriginNotAllowed, match=r"127\.0\.0\.1"):
        talk(PLAIN, get(), allowed=["https://127.0.0.1:1"])
    with pytest.raises(BadInput):
        talk(
            PLAIN,
            lambda network, server: network.send(HttpRequest(method="GET", url=server.url.replace("https", "http"))),
        )


@pytest.mark.promise(3)
def test_a_certificate_that_nobody_trusted_signed_is_refused(talk, authority):
    other = type(authority)()
    with pytest.raises(PeerNotTrusted):
        talk(PLAIN, get(), trust=trusting(other.pem))
    with pytest.raises(PeerNotTrusted):
        talk(PLAIN, get(), names=("another.example",))
    assert talk(PLAIN, get(), trust=trusting_nobody_yet(), names=("another.example",))[0].body == b"ok"


def test_a_redirect_is_not_followed(talk):
    with pytest.raises(ReplyRefused, match="elsewhere"):
        talk(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", get())


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, id="announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 50_000, id="not announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, id="in one chunk"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"258\r\n" + b"x" * 600 + b"\r\n") * 2,
            id="in chunks",
        ),
    ],
)
def test_a_reply_beyond_the_limit_is_not_read(talk, reply):
    with pytest.raises(ReplyRefused, match="longer than 1000"):
        talk(reply, get())


def test_a_compressed_reply_is_refused(talk):
    with pytest.raises(ReplyRefused, match="compressed"):
        talk(PLAIN.replace(b"X-Word: a", b"Content-Encoding: gzip"), get())


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        pytest.param(CHUNKED + b"1;a=b\r\no\r\n1\r\nk\r\n0\r\nX-Trailer: y\r\n\r\n", b"ok", id="in chunks"),
        pytest.param(OK + b"\r\nok", b"ok", id="until the connection ends"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, b"ok", id="after one that only says wait"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="without a body"),
    ],
)
def test_a_reply_may_end_in_several_ways(talk, reply, body):
    assert talk(reply, get())[0].body == body


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="another protocol unasked"),
        pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"),
        pytest.param(OK + b"Content-Length: +1\r\n\r\na", id="a length with a sign"),
        pytest.param(OK + b"Content-Length: \xb2\r\n\r\na", id="a length in other digits"),
        pytest.param(OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length and chunks"),
        pytest.param(OK + b"A : b\r\nContent-Length: 0\r\n\r\n", id="a blank in a name"),
        pytest.param(OK + b"A: b\0\r\nContent-Length: 0\r\n\r\n", id="a zero byte"),
        pytest.param(CHUNKED + b"-1\r\n\r\n", id="a negative chunk"),
        pytest.param(CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", id="a chunk in Python's digits"),
        pytest.param(CHUNKED + b"1\r\nab\r\n0\r\n\r\n", id="a chunk that is longer than it said"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\n", id="a chunk longer than anything"),
        pytest.param(OK + b"A: " + b"b" * 2_000_000, id="a header without end"),
        pytest.param(OK + b"A: b\r\n" * 200_000, id="headers without end"),
        pytest.param(b"HTTP/1.1 200 " + b"b" * 2_000_000, id="a first line without end"),
        pytest.param(CHUNKED + b"0\r\n" + b"A: b\r\n" * 200_000, id="trailers without end"),
        pytest.param(OK + b"X-Length: 9\r\nContent-L", id="a head that is cut off"),
        pytest.param(CHUNKED + b"2\r\nok\r\n", id="chunks that are cut off"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_not_http_or_could_be_read_in_two_ways_is_no_reply(talk, reply):
    with pytest.raises(PeerUnavailable):
        talk(reply, get(timeout=10))


def test_another_coding_than_chunks_is_refused(talk):
    with pytest.raises(ReplyRefused, match="compressed"):
        talk(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", get())


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("GET /", (), id="method"),
        pytest.param("GET", (("A\r\nB", "c"),), id="name"),
        pytest.param("GET", (("A", "b\r\nC: d"),), id="value"),
        pytest.param("GET", (("A", "b\0c"),), id="value with a zero byte"),
    ],
)
def test_nothing_breaks_out_of_its_line(talk, method, headers):
    with pytest.raises(ReplyRefused, match="not HTTP"):
        talk(PLAIN, lambda network, server: network.send(HttpRequest(method=method, url=server.url, headers=headers)))


def test_a_long_body_comes_over_whole(talk):
    body = bytes(range(256)) * 5000  # more than is handed over in one piece

    async def exchange(network, server):
        await network.send(HttpRequest(method="POST", url=server.url, body=body))
        return server

    ((head, heard),) = talk(PLAIN, exchange).heard
    assert heard == body
    assert b"content-length: 1280000\r\n" in head.lower()


def test_a_post_without_a_body_says_so(talk):
    async def exchange(network, server):
        await network.send(HttpRequest(method="POST", url=server.url))
        return server

    assert b"content-length: 0\r\n" in talk(PLAIN, exchange).heard[0][0].lower()


def test_a_reply_that_comes_too_late_is_none(talk):
    began = time.monotonic()
    with pytest.raises(PeerUnavailable, match=r"within 0\.2 s"):
        talk(PLAIN, get(timeout=0.2), delay=1.0)
    assert time.monotonic() - began < 0.9


def test_a_peer_that_is_not_there_is_unavailable(talk):
    async def exchange(network, _server):
        await network.send(HttpRequest(method="GET", url="https://127.0.0.1:9"))

    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        talk(PLAIN, exchange, allowed=["https://127.0.0.1:9"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Hub.Example", "https://hub.example:443"),
        ("https://hub.example:8443/path?x#", "https://hub.example:8443"),
        ("https://[::1]:80/", "https://[::1]:80"),
    ],
)
def test_an_origin_has_one_form(url, expected):
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://hub",
        "https://",
        "https://user@hub",
        "https://hub@evil",
        "https://hub:x",
        "https://hub/\n",
        "file:///etc",
        "hub",
        "https://hub:99999",
        "https://a b",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(BadInput, match="no address"):
        origin(url)


def test_what_is_no_certificate_is_refused():
    with pytest.raises(BadInput, match="PEM"):
        trusting(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


ASKER = """
import asyncio, sys
from pathlib import Path
from paroma.kernel.wire.network import HttpRequest, HttpsNetwork, trusting

async def main():
    async with HttpsNetwork([sys.argv[1]], trust=trusting(Path(sys.argv[2]).read_bytes())) as network:
        reply = await network.send(HttpRequest(method="GET", url=sys.argv[1], timeout=20))
        print(reply.status, reply.body.decode())

asyncio.run(main())
"""


def test_the_hospitals_proxy_is_used_and_does_not_see_inside(authority, tmp_path):
    """The environment names a proxy; the hub's name exists nowhere else; the proxy hears one CONNECT and then TLS."""
    heard = []

    async def pump(reader, writer):
        while piece := await reader.read(65536):
            heard.append(piece)
            writer.write(piece)
        writer.close()

    async def course():
        server = Server(PLAIN)
        hub = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=authority.serve_as(tmp_path, "hub.example"))

        async def connect(reader, writer):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            to_hub, from_asker = hub.sockets[0].getsockname(), (reader, writer)
            hub_reader, hub_writer = await asyncio.open_connection(*to_hub)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(pump(from_asker[0], hub_writer), pump(hub_reader, writer), return_exceptions=True)

        proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        named = f"http://me:a%40b@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        environ = {"HTTPS_PROXY": named, "PATH": os.environ["PATH"]}
        asker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ASKER,
            "https://hub.example:8443",
            tmp_path / "ca.pem",
            env=environ,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asker.communicate()
        for listening in (hub, proxy):
            listening.close()
            await listening.wait_closed()
        return said

    assert asyncio.run(course()) == b"200 ok\n"
    assert heard[0].startswith(b"CONNECT hub.example:8443 HTTP/1.1\r\n")
    assert b"\r\nproxy-authorization: basic " + base64.b64encode(b"me:a@b").lower() in heard[0].lower()
    assert b"GET /" not in b"".join(heard)


def connections(authority, tmp_path, replies, *, requests):
    """What came of `requests` requests, and the connections that it took. replies: the bytes of every reply."""
    made = []

    async def handle(reader, writer):
        made.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(replies)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def course():
        listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=authority.serve_as(tmp_path, "127.0.0.1"))
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        said = []
        async with HttpsNetwork([url], trust=trusting(authority.pem), most_reply_bytes=1000) as network:
            for _ in range(requests):
                said.append((await network.send(HttpRequest(method="GET", url=url))).body)
                await asyncio.sleep(0.02)
        listening.close()
        await listening.wait_closed()
        return said

    return asyncio.run(course()), made


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(PLAIN, 1, id="one connection carries many requests"),
        pytest.param(PLAIN.replace(b"X-Word: a", b"Connection: close"), 5, id="unless the other side ends it"),
        pytest.param(PLAIN + PLAIN, 5, id="or says what nobody asked for"),
    ],
)
def test_how_many_connections_five_requests_take(authority, tmp_path, reply, expected):
    said, made = connections(authority, tmp_path, reply, requests=5)
    assert said == [b"ok"] * 5
    assert len(made) == expected


@asynccontextmanager
async def speaking(conversation):
    """A network without TLS to a server that speaks as `conversation(reader, writer)` does: (network, its origin)."""

    async def handle(reader, writer):
        try:
            await conversation(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        async with closing(LoopbackNetwork([url])) as network:
            yield network, url
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.mark.promise(3)
def test_a_reply_that_came_before_its_request_is_nobodys():
    async def conversation(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(PLAIN.replace(b"\r\n\r\nok", b"\r\n\r\nno"))
        await reader.read()

    async def course():
        async with speaking(conversation) as (network, url):
            first = await network.send(HttpRequest(method="GET", url=url))
            await asyncio.sleep(0.2)
            with pytest.raises(PeerUnavailable, match="before it is asked"):
                await network.send(HttpRequest(method="GET", url=url))
            third = await network.send(HttpRequest(method="GET", url=url))
        return first.body, third.body

    assert asyncio.run(course()) == (b"ok", b"ok")


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_request_whose_connection_breaks_is_not_repeated(method):
    heard = []

    async def conversation(reader, writer):
        while True:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heard) == 2:
                return
            writer.write(PLAIN)
            await writer.drain()

    async def course():
        async with speaking(conversation) as (network, url):
            await network.send(HttpRequest(method=method, url=url))
            with pytest.raises(PeerUnavailable, match="broke"):
                await network.send(HttpRequest(method=method, url=url))

    asyncio.run(course())
    assert len(heard) == 2


def test_closing_ends_what_is_under_way_and_a_later_request_begins_anew():
    async def conversation(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/slow" not in head:
            writer.write(PLAIN)
            await writer.drain()
        await reader.read()

    async def course():
        async with speaking(conversation) as (network, url):
            waiting = asyncio.ensure_future(network.send(HttpRequest(method="GET", url=url + "/slow")))
            await asyncio.sleep(0.2)
            await network.close()
            with pytest.raises(PeerUnavailable):
                await waiting
            return (await network.send(HttpRequest(method="GET", url=url))).body

    assert asyncio.run(course()) == b"ok"


def test_many_requests_at_once_each_get_their_own_reply():
    async def conversation(reader, writer):
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
            await writer.drain()

    async def course():
        async with speaking(conversation) as (network, url):

            async def ask(number):
                return (await network.send(HttpRequest(method="GET", url=f"{url}/{number}"))).body

            return await asyncio.gather(*(ask(number) for number in range(150)))

    assert asyncio.run(course()) == [b"/%d" % number for number in range(150)]


def test_a_program_that_sends_nothing_loads_no_client():
    """What `paroma --help` and the cold start of a site do: importing the room is quick."""
    code = "import sys, paroma.kernel.wire.network, paroma.cli; print('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_a_proxy_that_says_no_is_named(authority, tmp_path):
    async def course():
        async def connect(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", "PATH": os.environ["PATH"]}
        asker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ASKER,
            "https://hub.example:8443",
            tmp_path / "ca.pem",
            env=environ,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asker.communicate()
        proxy.close()
        await proxy.wait_closed()
        return said.decode()

    assert "PeerUnavailable: the proxy answers 407" in asyncio.run(course())
