"""The hub's own certificate, renewed while it serves."""

import asyncio
import contextlib
import signal
import socket
import ssl

import pytest
from cryptography import x509

from paroma.hub import tls
from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.wire.serve import Listening, serve

DAY = 86_400.0


class Shifted(SystemClock):
    def __init__(self, days):
        self.days = days

    def now(self):
        return super().now() + self.days * DAY


class Program:
    """Answers `/now` at once, and `/parked` once it is told; counts its own starts and stops."""

    def __init__(self):
        self.go, self.parked, self.lives = asyncio.Event(), asyncio.Event(), []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                what = (await receive())["type"]
                self.lives.append(what.partition(".")[2])
                await send({"type": what + ".complete"})
                if what == "lifespan.shutdown":
                    return
        if scope["path"] == "/parked":
            self.parked.set()
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def shown_now(port, files):
    """The serial number of the certificate that a new connection is shown."""
    serial, reply = await ask(port, files, "/now")
    assert (await reply()).endswith(b"ok")
    return serial


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def ask(port, files, path):
    """Serial number of the certificate that is shown, and the reply; to be awaited for."""
    trust = ssl.create_default_context(cafile=str(files.ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
    shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    await writer.drain()

    async def reply():
        said = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return said

    return shown.serial_number, reply


@pytest.mark.parametrize("whose", ["its own", "an operator's"])
def test_a_certificate_is_renewed_without_a_stop(tmp_path, whose):
    """One that ends in 20 days is replaced; who connects then is shown the new one, and who waits gets their answer."""
    disk, names = SystemDisk(), ("localhost", "127.0.0.1")
    files = tls.own_files(tmp_path / "tls", names=names, clock=Shifted(-70), disk=disk)

    def anew():
        return tls.own_files(tmp_path / "tls", names=names, clock=Shifted(0), disk=disk)

    async def scene():
        port, program, renewed, up = free_port(), Program(), asyncio.Event(), asyncio.Event()
        where = Listening(host="127.0.0.1", port=port, certificate=files.certificate, key=files.key)

        async def stop():
            program.go.set()

        serving = asyncio.ensure_future(serve(program, where, on_stop=stop, ready=up.set, renewed=renewed))
        await asyncio.wait_for(up.wait(), 10)
        before, parked = await ask(port, files, "/parked")
        await asyncio.wait_for(program.parked.wait(), 10)
        renew = anew if whose == "its own" else None
        watching = asyncio.ensure_future(tls.watch(renewed, files, renew, clock=SystemClock(), every=0.05))
        if renew is None:
            await asyncio.sleep(0.2)
            assert await shown_now(port, files) == before  # nothing changed, nothing is done
            anew()
        async with asyncio.timeout(20):
            while await shown_now(port, files) == before:
                await asyncio.sleep(0.05)
        program.go.set()
        assert (await asyncio.wait_for(parked(), 10)).endswith(b"ok")
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 20)
        watching.cancel()
        assert program.lives == ["startup", "shutdown"]

    asyncio.run(scene())


def test_files_that_do_not_fit_each_other_are_not_shown(tmp_path):
    """Whoever replaces them writes one after the other."""
    disk, names = SystemDisk(), ("localhost",)
    files = tls.own_files(tmp_path / "a", names=names, clock=Shifted(0), disk=disk)
    other = tls.own_files(tmp_path / "b", names=names, clock=Shifted(0), disk=disk)

    async def scene():
        renewed = asyncio.Event()
        watching = asyncio.ensure_future(tls.watch(renewed, files, None, clock=SystemClock(), every=0.02))
        await asyncio.sleep(0.1)
        files.key.write_bytes(other.key.read_bytes())
        await asyncio.sleep(0.2)
        assert not renewed.is_set()
        files.certificate.write_bytes(other.certificate.read_bytes())
        await asyncio.wait_for(renewed.wait(), 5)
        watching.cancel()

    asyncio.run(scene())


def test_a_program_that_does_not_start_is_said_so(tmp_path):
    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def nothing():
        return None

    async def scene():
        with pytest.raises(RuntimeError, match="no database"):
            await serve(broken, Listening(host="127.0.0.1", port=free_port()), on_stop=nothing)

    asyncio.run(scene())
