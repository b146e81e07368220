"""A disk that fails, or kills the process, at the n-th durable write; and a vault in a folder of the test."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from paroma.data.vault.vault import Vault, open_vault
from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import SeededRandomness


class FaultyDisk(SystemDisk):
    """Counts durable writes; at number `at` it does what `how` says: `nothing` is left, the write is `left`, or `kill`."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0
        self.how = "nothing"

    def arm(self, at: int, how: str) -> None:
        self.count, self.at, self.how = 0, at, how

    def _do(self, write: Callable[[], None]) -> None:
        self.count += 1
        if self.count != self.at:
            write()
            return
        if self.how.endswith("left"):
            write()
        if self.how.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(5, "input/output error")

    def commit(self, commit):
        self._do(commit)

    def replace(self, path, content, *, mode=0o600):
        self._do(lambda: SystemDisk.replace(self, path, content, mode=mode))

    def remove(self, path):
        self._do(lambda: SystemDisk.remove(self, path))


@pytest.fixture
def faulty_disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def open_at(tmp_path):
    """Opens vaults in folders of this test, and closes them: `open_at()`, `open_at("other", disk=...)`."""
    opened: list[Vault] = []
    count = [0]

    def make(name="vault", *, disk=None, folder: Path = tmp_path, keys=()) -> Vault:
        count[0] += 1
        vault = open_vault(
            folder / name,
            [folder / f"{name}-replica-1", folder / f"{name}-replica-2"],
            disk or SystemDisk(),
            SeededRandomness(count[0], str(folder)),
            keys,
        )
        opened.append(vault)
        return vault

    yield make
    for vault in opened:
        vault.close()
