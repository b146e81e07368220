"""The network of the simulation: it calls ASGI programs in this process, and loses, delays, doubles and reorders.

A request goes over two links, there and back, each with its own delay. A lost request never arrives; a lost reply
means that the request had its effect and the sender does not know. Both look alike to the sender: no reply within its
time.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from paroma.kernel.wire.network import HttpRequest, HttpResponse, PeerUnavailable, origin
from paroma.lab.simulation.loop import Loop

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a link does to what it carries. Delays in virtual seconds, one way; the others are chances from 0 to 1.

    Delays that overlap reorder: the second request may arrive first.
    """

    least_delay: float = 0.001
    most_delay: float = 0.005
    lose_request: float = 0.0
    lose_reply: float = 0.0
    double: float = 0.0  # the request arrives twice; the reply is that of the later one


QUIET: Final = Faults()


@dataclass(slots=True)
class _Served:
    machine: str
    app: App
    state: dict[str, Any]
    killed: bool = False
    handling: dict[asyncio.Task[HttpResponse], None] = field(default_factory=dict)  # a dict keeps the order


class Internet:
    """All links between the machines of one simulation."""

    def __init__(self, loop: Loop, faults: Faults = QUIET) -> None:
        self.faults = faults
        self._loop = loop
        self._served: dict[str, _Served] = {}
        self._cut: set[frozenset[str]] = set()
        self._dead: set[str] = set()
        self._sources: dict[tuple[str, str], random.Random] = {}

    @asynccontextmanager
    async def serving(self, machine: str, url: str, app: App) -> AsyncIterator[None]:
        """Serve `app` at the origin of `url` as `machine`; its lifespan runs around it."""
        lifespan = _Lifespan(self._loop, machine, app)
        served = _Served(machine, app, lifespan.state)
        await lifespan.start()
        self._dead.discard(machine)
        self._served[origin(url)] = served
        try:
            yield
        finally:
            if self._served.get(origin(url)) is served:
                del self._served[origin(url)]
            if not served.killed:
                await lifespan.stop()

    def network(self, machine: str) -> "MachineNetwork":
        """The `kernel.wire.network.Network` of `machine`."""
        self._dead.discard(machine)
        return MachineNetwork(self, machine)

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between the two machines, in either direction, until `heal`."""
        self._cut.add(frozenset((one, other)))
        self._loop.note(f"cut {one} {other}")

    def heal(self, one: str, other: str) -> None:
        """The link works again. Requests that it swallowed do not come back."""
        self._cut.discard(frozenset((one, other)))
        self._loop.note(f"heal {one} {other}")

    def kill(self, machine: str) -> None:
        """Whatever `machine` serves or has asked for ends without a reply. Serving or a new `network` revives it."""
        self._dead.add(machine)
        self._loop.note(f"kill {machine}")
        for url, served in list(self._served.items()):
            if served.machine == machine:
                del self._served[url]
                served.killed = True
                for task in list(served.handling):
                    task.cancel()

    async def send(self, sender: str, request: HttpRequest) -> HttpResponse:
        """Carry `request` from `sender` to whoever serves its origin. Raises PeerUnavailable."""
        where = origin(request.url)
        what = f"{sender} {request.method} {where}{urlsplit(request.url).path}"
        try:
            async with asyncio.timeout(request.timeout):
                reply = await self._carry(sender, where, request)
        except TimeoutError as problem:
            self._loop.note(f"late {what}")
            raise PeerUnavailable(
                f"no reply from `{where}` within {request.timeout:g} s", do="repeat the request"
            ) from problem
        self._loop.note(f"{reply.status} {what} {len(reply.body)}")
        return reply

    async def _carry(self, sender: str, where: str, request: HttpRequest) -> HttpResponse:
        served = self._served.get(where)
        receiver = served.machine if served else where
        chance = self._sources.setdefault((sender, receiver), self._loop.source(f"link/{sender}/{receiver}"))
        faults = self.faults
        delays = [chance.uniform(faults.least_delay, faults.most_delay) for _ in range(3)]
        lost, deaf, doubled = (chance.random() for _ in range(3))
        await asyncio.sleep(delays[0])
        if sender in self._dead:
            await _never()
        if frozenset((sender, receiver)) in self._cut or lost < faults.lose_request:
            await _never()
        served = self._served.get(where)
        if served is None:
            raise PeerUnavailable(f"`{where}` cannot be reached", do="check the network and the proxy, then repeat")
        handled = self._handle(served, sender, request)
        if doubled < faults.double:
            await asyncio.sleep(delays[2])
            handled = self._handle(served, sender, request)
        reply = await _reply_of(handled, where)
        await asyncio.sleep(delays[1])
        if deaf < faults.lose_reply or frozenset((sender, receiver)) in self._cut or sender in self._dead:
            await _never()
        return reply

    def _handle(self, served: _Served, sender: str, request: HttpRequest) -> "asyncio.Task[HttpResponse]":
        task = self._loop.on_machine(served.machine, _answer(served, sender, request))
        served.handling[task] = None
        task.add_done_callback(lambda done: served.handling.pop(done, None))
        return task


class MachineNetwork:
    """What one machine sees of the internet."""

    def __init__(self, internet: Internet, machine: str) -> None:
        self._internet = internet
        self._machine = machine

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request`; its reply, whatever its status. Raises PeerUnavailable."""
        return await self._internet.send(self._machine, request)


async def _never() -> None:
    await asyncio.sleep(1e9)  # the sender's own time ends before


async def _reply_of(task: "asyncio.Task[HttpResponse]", where: str) -> HttpResponse:
    # shielded: a sender that gives up does not stop what it has set off
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            raise  # the sender is the one that is cancelled
    raise PeerUnavailable(f"the line to `{where}` broke", do="repeat the request")


async def _answer(served: _Served, sender: str, request: HttpRequest) -> HttpResponse:
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": request.body, "more_body": False})
    status, headers, body = 500, [], bytearray()
    finished = False

    async def send(message: Message) -> None:
        nonlocal status, headers, finished
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            finished = not message.get("more_body", False)
            if finished:
                incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.sleep(0)

    try:
        await served.app(_scope(served, sender, request), incoming.get, send)
    except Exception as problem:  # noqa: BLE001  # the end of a request
        # a server answers 500 and goes on; the simulation remembers, so that a test can ask
        asyncio.get_running_loop().call_exception_handler({"message": "a handler failed", "exception": problem})
        if not finished:
            return HttpResponse(status=500, headers=MappingProxyType({}), body=b"")
    return HttpResponse(status=status, headers=_folded(headers), body=bytes(body))


def _scope(served: _Served, sender: str, request: HttpRequest) -> Scope:
    parts = urlsplit(request.url)
    path = parts.path or "/"
    fixed = [(b"host", parts.netloc.encode()), (b"content-length", str(len(request.body)).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method.upper(),
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": fixed + [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers],
        "client": (sender, 0),
        "server": (parts.hostname, parts.port or 443),
        "state": dict(served.state),
    }


def _folded(headers: list[tuple[bytes, bytes]]) -> MappingProxyType[str, str]:
    folded: dict[str, str] = {}
    for raw, value in headers:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        folded[name] = f"{folded[name]}, {text}" if name in folded else text
    return MappingProxyType(folded)


class _Lifespan:
    """ASGI's lifespan protocol, by hand. A program without one is served all the same."""

    def __init__(self, loop: Loop, machine: str, app: App) -> None:
        self._loop = loop
        self._machine = machine
        self.state: dict[str, Any] = {}
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = self._loop.on_machine(self._machine, self._run())
        await self._ask("lifespan.startup")

    async def stop(self) -> None:
        await self._ask("lifespan.shutdown")
        if self._task is not None:
            await self._task

    async def _ask(self, phase: str) -> None:
        self._to_app.put_nowait({"type": phase})
        answer = await self._from_app.get()
        if answer["type"] == f"{phase}.failed":
            raise RuntimeError(f"{phase} failed: {answer.get('message', '')}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}

        async def send(message: Message) -> None:
            self._from_app.put_nowait(message)
            await asyncio.sleep(0)

        try:
            await self._app(scope, self._to_app.get, send)
        except Exception as problem:  # noqa: BLE001  # a program without lifespan raises on the unknown scope
            self._from_app.put_nowait({"type": "lifespan.unsupported", "message": repr(problem)})
        self._from_app.put_nowait({"type": "lifespan.ended"})
