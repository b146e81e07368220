import asyncio
import socket
from pathlib import Path

import pytest

from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.mounts import Interpreter
from paroma.learn.sandbox.task import Limits

INSIDE = Path(__file__).parent / "inside"
ENTRIES = (
    "attempt",
    "echo",
    "surroundings",
    "fill_memory",
    "burn",
    "sleep",
    "many_threads",
    "fill_disk",
    "bury",
    "one_large_file",
    "reply_of",
    "write_table",
    "raise_with",
    "print_much",
    "abort",
    "leave",
    "forge",
    "converse",
)


@pytest.fixture(scope="session")
def inside():
    return INSIDE


@pytest.fixture(scope="session")
def loop():
    """One loop for all tests of this folder, so that they can share a sandbox."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def notes(tmp_path_factory):
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="session")
def sandbox(loop, notes):
    started = loop.run(
        Sandbox.start(
            tuple(f"attacks:{name}" for name in ENTRIES),
            interpreter=Interpreter.current(also=(INSIDE,)),
            limits=Limits(memory=256 << 20),
            scratch=24 << 20,
            notes=notes,
        )
    )
    yield started
    loop.run(started.stop())


@pytest.fixture(scope="session")
def port():
    """A port of this machine that really listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
