"""The root key on its replicas: small files in at least two folders, one a number (the epoch), never in a backup.

An erasure makes a new root: durable on all replicas before the old one is removed from any. The strength of this back
end is that of removing a file: on flash storage the old bytes may live on until the disk reuses them (`docs/` has the
table).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paroma.data.vault.errors import VaultDamaged
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput

KEY_BYTES = 32
LEAST_REPLICAS = 2
_MAGIC = b"paroma root 1\n"
_NAME = re.compile(r"root-(\d{8})\.key")


@dataclass(frozen=True, slots=True)
class Root:
    """The key under which the root page is sealed."""

    epoch: int  # grows by one with every erasure
    key: bytes  # 32 bytes


class Replicas:
    """The folders that hold the root key."""

    def __init__(self, folders: Sequence[Path], disk: Disk) -> None:
        """Raises BadInput unless there are two different folders at least."""
        if len({folder.resolve() for folder in folders}) < LEAST_REPLICAS:
            raise BadInput(
                f"the root key needs {LEAST_REPLICAS} replica folders at least",
                do="name two folders on different disks in the settings",
            )
        self.folders = tuple(folders)
        self._disk = disk

    def newest(self) -> tuple[Root, ...]:
        """The root with the highest epoch that any replica holds; several where they disagree; none where none has one.

        They can disagree after an erasure failed half way, one replica was taken away, and another erasure followed.
        Raises OSError, VaultDamaged.
        """
        found = [(epoch, path) for folder in self.folders for epoch, path in _keys(folder)]
        if not found:
            return ()
        epoch = max(epoch for epoch, _ in found)
        return tuple(dict.fromkeys(_read(path, epoch) for e, path in found if e == epoch))

    def spread(self, root: Root) -> None:
        """`root` is durable on every replica. Raises OSError; then some may hold it and some not."""
        content = _MAGIC + root.epoch.to_bytes(8, "big") + root.key
        content += hashlib.sha256(content).digest()
        for folder in self.folders:
            path = folder / f"root-{root.epoch:08d}.key"
            if not path.exists() or path.read_bytes() != content:
                self._disk.replace(path, content)

    def forget_before(self, epoch: int) -> None:
        """No replica holds a root older than `epoch`. Raises OSError; then some may still hold one."""
        for folder in self.folders:
            for older, path in _keys(folder):
                if older < epoch:
                    self._disk.remove(path)
            for path in folder.glob("root-*.key.new"):  # left by a write that was cut short: it holds a key, too
                self._disk.remove(path)


def _keys(folder: Path) -> list[tuple[int, Path]]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [(int(m[1]), path) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))]


def _read(path: Path, epoch: int) -> Root:
    content = path.read_bytes()
    body, check = content[:-KEY_BYTES], content[-KEY_BYTES:]
    if body[: -8 - KEY_BYTES] != _MAGIC or hashlib.sha256(body).digest() != check:
        raise VaultDamaged(f"the root key file `{path.name}`")
    if int.from_bytes(body[len(_MAGIC) : len(_MAGIC) + 8], "big") != epoch:
        raise VaultDamaged(f"the root key file `{path.name}`")
    return Root(epoch, body[-KEY_BYTES:])
