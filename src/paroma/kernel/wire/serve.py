"""Serves an ASGI program in the program's own loop: one process, no children, TLS by rustls.

On SIGINT or SIGTERM the parked requests are answered first (`on_stop`), then the server ends, then the program.
When the certificate's file has changed (`renewed`), connections that begin are shown the new one; those that are open
go on under the old one until they end. The program's own start and stop happen once, whatever the server does.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

PARKED = 20_000  # requests that may wait at once: granian's own default is 1,024
BACKLOG = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, and with what certificate (PEM; the key PKCS#8), or None for plain HTTP on loopback."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


async def serve(
    app: Any,
    where: Listening,
    *,
    on_stop: Callable[[], Awaitable[None]],
    ready: Callable[[], None] = lambda: None,
    renewed: asyncio.Event | None = None,
) -> None:
    """Serve until a signal comes. `ready` is called when the socket listens. renewed: set whenever the certificate's files
    have changed; cleared here once new connections get them.
    """
    async with _lifespan(app):
        await _serve(app, where, on_stop, ready, renewed or asyncio.Event())


async def _serve(
    app: Any,
    where: Listening,
    on_stop: Callable[[], Awaitable[None]],
    ready: Callable[[], None],
    renewed: asyncio.Event,
) -> None:
    server = Server(
        app,
        address=where.host,
        port=where.port,
        interface=Interfaces.ASGINL,  # without its own start and stop: a reload would do both again
        http=HTTPModes.http1,
        ssl_cert=where.certificate,
        ssl_key=where.key,
        backlog=BACKLOG,
        backpressure=PARKED,
        websockets=False,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    task = loop.create_task(server.serve())
    waiting = loop.create_task(stop.wait())
    listening = loop.create_task(_listening(where))
    reloading = loop.create_task(_reload(server, renewed))
    try:
        await asyncio.wait((task, listening), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            ready()
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        await on_stop()
        if not task.done():
            server.stop()  # type: ignore[no-untyped-call]  # granian leaves it untyped
        await task
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for other in (waiting, listening, reloading):
            other.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await other


async def _listening(where: Listening) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(where.host, where.port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return


async def _reload(server: Server, renewed: asyncio.Event) -> None:
    """Let a new worker take over whenever the files have changed; it reads them anew, the old one answers what it has."""
    while True:
        await renewed.wait()
        renewed.clear()
        server.reload()  # type: ignore[no-untyped-call]  # granian leaves it untyped


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    """The program's start before, its stop after (ASGI 3.0, lifespan). Raises RuntimeError where it does not start."""
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.get_running_loop().create_task(app(scope, heard.get, said.put))

    async def tell(what: str) -> None:
        await heard.put({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(said.get())
        await asyncio.wait({answer, running}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await running  # raises what the program raised
            raise RuntimeError(f"the program ended at its {what}")
        if answer.result()["type"] != f"lifespan.{what}.complete":
            await asyncio.wait({running})
            raise RuntimeError(answer.result().get("message") or f"the program failed at its {what}")

    try:
        await tell("startup")
        yield
        await tell("shutdown")
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # it has said all it had to say
            await running
