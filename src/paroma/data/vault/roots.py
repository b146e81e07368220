"""The root key on its replicas: small files in at least two folders, one a number (the epoch), never in a backup.

An erasure makes a new root: durable on all replicas before the old one is removed from any. Without keys that wrap, the
strength of this is that of removing a file: on flash storage the old bytes may live on until the disk reuses them. With them
(`trust/keys/wrapping`), files hold the root sealed under the first; the others unwrap what was sealed under them, and at the
next opening it is sealed under the first (`docs/howto/keep-keys-in-an-hsm.md`).
"""

import errno
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paroma.data.vault.errors import RootWrapped, VaultDamaged
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, ParomaError
from paroma.trust.keys.errors import NotWrappedByThis
from paroma.trust.keys.wrapping import WrappingKey

KEY_BYTES = 32
LEAST_REPLICAS = 2
DIGEST = 32
_MAGIC = b"paroma root 1\n"
_WRAPPED = b"paroma root 2\n"
_NAME = re.compile(r"root-(\d{8})\.key")


@dataclass(frozen=True, slots=True)
class Root:
    """The key under which the root page is sealed."""

    epoch: int  # grows by one with every erasure
    key: bytes  # 32 bytes


class Replicas:
    """The folders that hold the root key."""

    def __init__(self, folders: Sequence[Path], disk: Disk, keys: Sequence[WrappingKey] = ()) -> None:
        """keys: that wrap the root; the first for what is written. Raises BadInput unless there are two folders at least."""
        if len({folder.resolve() for folder in folders}) < LEAST_REPLICAS:
            raise BadInput(
                f"the root key needs {LEAST_REPLICAS} replica folders at least",
                do="name two folders on different disks in the settings",
            )
        self.folders = tuple(folders)
        self._disk, self._keys = disk, tuple(keys)

    def newest(self) -> tuple[Root, ...]:
        """The root with the highest epoch that any replica holds; several where they disagree; none where none has one.

        They can disagree after an erasure failed half way, one replica was taken away, and another erasure followed.
        Raises OSError, VaultDamaged, RootWrapped, and what the keys raise (`trust/keys/errors`).
        """
        found = [(epoch, path) for folder in self.folders for epoch, path in _keys(folder)]
        if not found:
            return ()
        epoch = max(epoch for epoch, _ in found)
        return tuple(dict.fromkeys(_read(path, epoch, self._keys) for e, path in found if e == epoch))

    def spread(self, root: Root) -> None:
        """`root` is durable on every replica, sealed under the first key. Raises OSError; then some may hold it and some not."""
        content = self._content(root)
        for folder in self.folders:
            path = folder / f"root-{root.epoch:08d}.key"
            if not path.exists() or not self._holds(path, root, content):
                self._disk.replace(path, content)

    def _content(self, root: Root) -> bytes:
        number = root.epoch.to_bytes(8, "big")
        content = _MAGIC + number + root.key
        if self._keys:
            first = self._keys[0]
            try:
                sealed = first.wrap(root.key, _purpose(root.epoch))
                if first.unwrap(sealed, _purpose(root.epoch)) != root.key:
                    raise NotWrappedByThis(first.uri)
            except ParomaError as problem:  # to the vault, a key that is away is a disk that is
                raise OSError(errno.EIO, problem.message, first.uri) from problem
            content = _WRAPPED + number + sealed
        return content + hashlib.sha256(content).digest()

    def _holds(self, path: Path, root: Root, content: bytes) -> bool:
        if not self._keys:
            return path.read_bytes() == content
        try:  # two sealings of one root differ, so what is there is opened: under the first key, or it is written anew
            return path.read_bytes().startswith(_WRAPPED) and _read(path, root.epoch, self._keys[:1]) == root
        except (VaultDamaged, RootWrapped):
            return False
        except ParomaError as problem:
            raise OSError(errno.EIO, problem.message, self._keys[0].uri) from problem

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


def _read(path: Path, epoch: int, keys: Sequence[WrappingKey]) -> Root:
    content = path.read_bytes()
    body, check = content[:-DIGEST], content[-DIGEST:]
    head, number, rest = body[: len(_MAGIC)], body[len(_MAGIC) : len(_MAGIC) + 8], body[len(_MAGIC) + 8 :]
    if hashlib.sha256(body).digest() != check or int.from_bytes(number, "big") != epoch:
        raise VaultDamaged(f"the root key file `{path.name}`")
    if head == _WRAPPED:
        rest = _unwrapped(path, rest, epoch, keys)
    elif head != _MAGIC:
        raise VaultDamaged(f"the root key file `{path.name}`")
    if len(rest) != KEY_BYTES:
        raise VaultDamaged(f"the root key file `{path.name}`")
    return Root(epoch, rest)


def _unwrapped(path: Path, sealed: bytes, epoch: int, keys: Sequence[WrappingKey]) -> bytes:
    for key in keys:
        try:
            return key.unwrap(sealed, _purpose(epoch))
        except NotWrappedByThis:
            continue
    raise RootWrapped(str(path), len(keys))


def _purpose(epoch: int) -> bytes:
    return b"paroma/root/v1\n%d" % epoch
