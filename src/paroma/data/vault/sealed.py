"""The sealed register: a small value under a key of the vault, with compare-and-swap and an epoch that only grows.

The privacy budget lies in one. Whoever restores an older copy of the file brings back an older epoch, and the log
anchors the newest: `require` refuses. What the value means is the reader's business.
"""

import re
import threading
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.data.vault.errors import RegisterMoved, RegisterOutdated, VaultDamaged, VaultUnavailable
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.kernel.randomness import Randomness

MOST_BYTES = 64 << 20
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


class Register:
    """Made by `Vault.register`. Epoch 0 is the empty value before the first swap."""

    def __init__(
        self, *, name: str, path: Path, key: bytes, disk: Disk, randomness: Randomness, lock: threading.RLock
    ) -> None:
        self.name = name
        self._path = path
        self._aead = AESGCM(key)
        self._disk = disk
        self._randomness = randomness
        self._lock = lock

    def read(self) -> tuple[int, bytes]:
        """Epoch and value, from the disk. Raises VaultDamaged, VaultUnavailable."""
        with self._lock:
            try:
                content = self._path.read_bytes()
            except FileNotFoundError:
                return 0, b""
            except OSError as problem:
                raise VaultUnavailable(problem, "read a register") from problem
            epoch = int.from_bytes(content[:8], "big")
            try:
                return epoch, self._aead.decrypt(content[8:20], content[20:], self._bound(epoch))
            except (InvalidTag, ValueError) as problem:
                raise VaultDamaged(f"the register `{self.name}`") from problem

    def swap(self, expected: int, value: bytes) -> int:
        """Put `value` in place of that of epoch `expected`, durably; the new epoch, `expected + 1`.

        Raises RegisterMoved when the epoch is another; BadInput beyond 64 MiB; VaultUnavailable, after which the swap
        may stand or not: read again.
        """
        if len(value) > MOST_BYTES:
            raise BadInput(f"a register holds at most {MOST_BYTES} bytes", do="keep less in it")
        with self._lock:
            found, _ = self.read()
            if found != expected:
                raise RegisterMoved(self.name, found, expected)
            epoch, nonce = expected + 1, self._randomness.take(12)
            content = epoch.to_bytes(8, "big") + nonce + self._aead.encrypt(nonce, value, self._bound(epoch))
            try:
                self._disk.replace(self._path, content)
            except OSError as problem:
                raise VaultUnavailable(problem, "write a register") from problem
            return epoch

    def by_value(self) -> "ByValue":
        """The same register for whoever compares bytes, not epochs."""
        return ByValue(self)

    def require(self, anchored: int) -> None:
        """Raise RegisterOutdated when this register is older than epoch `anchored`, which the log shows."""
        found, _ = self.read()
        if found < anchored:
            raise RegisterOutdated(self.name, found, anchored)

    def _bound(self, epoch: int) -> bytes:
        return b"paroma/register/v1\n%d\n" % epoch + self.name.encode()


class ByValue:
    """A register that is read and swapped by its bytes. None before the first swap."""

    def __init__(self, register: Register) -> None:
        self._register = register

    def read(self) -> bytes | None:
        """The bytes. Raises as `Register.read`."""
        epoch, value = self._register.read()
        return value if epoch else None

    def swap(self, old: bytes | None, new: bytes) -> None:
        """Put `new` in the place of `old`, durably. Raises RegisterMoved, and as `Register.swap`."""
        epoch, found = self._register.read()
        if (found if epoch else None) != old:
            raise RegisterMoved(self._register.name, epoch)
        self._register.swap(epoch, new)


def checked_name(name: str) -> str:
    """`name` as part of a file name. Raises BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"`{printable(name)}` names no register", do="use lower-case letters, digits and hyphens")
    return name
