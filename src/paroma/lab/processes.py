"""Real child processes: the hub and the sites of a laboratory, started through the `paroma` command like anybody's.

A child has a session of its own, so that Ctrl-C in the terminal reaches only its parent, which then stops the children
in order. If the parent dies, the kernel stops them (PR_SET_PDEATHSIG). Everything is stopped by process id, never by
name. What a child says goes into a file.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from paroma.kernel.errors import ParomaError, Unavailable

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 8.0
LOOK_SECONDS: Final = 0.02
COMMAND_SECONDS: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class ProcessFailed(Unavailable):
    """A child did not start, ended too early, or said no."""


@dataclass(slots=True)
class Program:
    """A long-lived child. It may be started again after it was stopped or killed: same command, same log file."""

    name: str
    command: Sequence[str | Path]
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises ProcessFailed when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise self._failed("does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Start, and wait until `ready` says yes. Raises ProcessFailed with the last line of its log.

        Must be called from the main thread: the kernel's death signal follows the thread that started the child.
        """
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, looked up beforehand
            )
        self.await_ready(ready, seconds=seconds)

    def kill(self) -> None:
        """`kill -9`: no last word, no clean end. Also what shares its session (its workers die with it)."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int | None:
        """SIGINT, as Ctrl-C would, then a kill if it does not end in time; its exit code. Safe to repeat."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()
        return self._process.returncode

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1] if lines else "it said nothing"

    def await_ready(self, ready: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Wait until `ready` says yes. Raises ProcessFailed."""
        until = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise self._failed("ended while starting")
            if time.monotonic() > until:
                self.kill()
                raise self._failed(f"was not ready within {seconds:g} s")
            time.sleep(LOOK_SECONDS)

    def _failed(self, what: str) -> ProcessFailed:
        return ProcessFailed(f"{self.name} {what}: {self.last_words()}", do=f"read `{self.log}`")


class Programs:
    """Programs that stop together, the last started first."""

    def __init__(self) -> None:
        self._started: list[Program] = []

    def add(self, program: Program) -> Program:
        """Remember `program`; it is stopped with the others."""
        self._started.append(program)
        return program

    def pids(self) -> tuple[int, ...]:
        """Of those that live, in the order of their start."""
        return tuple(program.pid for program in self._started if program.running)

    def stop(self) -> None:
        """Stop all. Safe to repeat."""
        while self._started:
            self._started.pop().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def command(*arguments: str | Path) -> list[str | Path]:
    """`paroma ...` of this very environment."""
    script = Path(sys.executable).with_name("paroma")
    return [script, *arguments]


def call(
    *arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS, typed: str = ""
) -> str:
    """Run a short `paroma` command; what it printed. Raises ProcessFailed with what it said instead."""
    try:
        done = subprocess.run(
            command(*arguments),
            env=None if env is None else dict(env),
            input=typed,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            preexec_fn=_die_with_parent,  # as above
        )
    except subprocess.TimeoutExpired as problem:
        raise ProcessFailed(f"`{_said(arguments)}` took longer than {seconds:g} s", do="look at its log") from problem
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
        raise ProcessFailed(f"`{_said(arguments)}`: {' '.join(said[-3:])}", do="repeat it by hand")
    return done.stdout


def free_port() -> int:
    """A port on loopback that nobody listens on now.

    Somebody else may take it before our child does; then its start fails, and says so.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    """Whether somebody takes connections on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(what: Callable[[], bool], *, seconds: float, sentence: str) -> float:
    """Wait until `what` says yes; how long it took (s). Raises ParomaError with `sentence`."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise ParomaError(f"{sentence} within {seconds:g} s", do="read the logs in the demo's folder")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def _said(arguments: Sequence[str | Path]) -> str:
    return " ".join(("paroma", *(str(a) if len(str(a)) < 60 else f"{str(a)[:20]}..." for a in arguments)))


def _die_with_parent() -> None:
    # SIGTERM lets the child answer its parked requests; it holds for the thread that started it, so start from the main one
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
