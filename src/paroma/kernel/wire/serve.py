"""Serves an ASGI program in the program's own loop: one process, no children, TLS by rustls.

On SIGINT or SIGTERM the parked requests are answered first (`on_stop`), then the server ends, then the program.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
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
    app: Any, where: Listening, *, on_stop: Callable[[], Awaitable[None]], ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal comes. `ready` is called when the socket listens."""
    server = Server(
        app,
        address=where.host,
        port=where.port,
        interface=Interfaces.ASGI,
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
        for other in (waiting, listening):
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
