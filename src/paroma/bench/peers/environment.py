"""A virtual environment for a peer, made for this bench and thrown away with it."""

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paroma.bench.benches import Say
from paroma.kernel.errors import Unavailable

INSTALL_SECONDS: Final = 420.0


class PeerUnavailable(Unavailable):
    """A peer cannot be installed or does not run here."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def install(self, *packages: str) -> None:
        """`pip install`. Raises PeerUnavailable with pip's last line."""
        self._run(
            [str(self.python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], INSTALL_SECONDS
        )

    def run(self, script: Path, arguments: Sequence[str], *, seconds: float) -> Mapping[str, float | str]:
        """What a script of ours prints as its last line, a JSON object. Raises PeerUnavailable."""
        said = self._run([str(self.python), str(script), *arguments], seconds)
        return _figures(script, said)

    @contextmanager
    def asking(
        self, script: Path, arguments: Sequence[str], *, seconds: float
    ) -> Iterator[Callable[[], Mapping[str, float | str]]]:
        """A script of ours that goes on: each call asks it for one more JSON object. seconds: the longest for one.

        Raises PeerUnavailable, also from the call.
        """
        process = subprocess.Popen(
            [str(self.python), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

        def ask() -> Mapping[str, float | str]:
            if process.stdin is None or process.stdout is None:
                raise AssertionError("both are pipes")
            try:
                process.stdin.write(b"\n")
                if not select.select([process.stdout], [], [], seconds)[0]:
                    raise PeerUnavailable(f"`{script.name}` took longer than {seconds:g} s", do="try again")
            except BrokenPipeError as problem:
                raise PeerUnavailable(f"`{script.name}` has ended", do="run it by hand") from problem
            return _figures(script, process.stdout.readline().decode())

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()

    def said(self, code: str) -> str:
        """What a line of Python prints there. Raises PeerUnavailable."""
        return self._run([str(self.python), "-c", code], INSTALL_SECONDS)

    def _run(self, command: list[str], seconds: float) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as problem:
            raise PeerUnavailable(
                f"`{Path(command[1]).name}` took longer than {seconds:g} s", do="try again"
            ) from problem
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()
            raise PeerUnavailable(lines[-1][:300], do="install it by hand to see more")
        return done.stdout


@contextmanager
def environment(say: Say, *packages: str) -> Iterator[Environment]:
    """A fresh environment with these packages. Raises PeerUnavailable."""
    with tempfile.TemporaryDirectory(prefix="paroma-peer-") as folder:
        made = Environment(Path(folder))
        say(f"installing {', '.join(packages) or 'nothing yet'} in an environment of its own")
        made._run([sys.executable, "-m", "venv", folder], INSTALL_SECONDS)  # noqa: SLF001  # its own maker
        if packages:
            made.install(*packages)
        yield made


def _figures(script: Path, said: str) -> Mapping[str, float | str]:
    """The JSON object on the last line. Raises PeerUnavailable."""
    try:
        found = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError) as problem:
        raise PeerUnavailable(f"`{script.name}` printed no figures", do="run it by hand") from problem
    if not isinstance(found, dict):
        raise PeerUnavailable(f"`{script.name}` printed no figures", do="run it by hand")
    return found
