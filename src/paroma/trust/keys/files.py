"""Keys in files: PKCS#8, readable by their owner only, there wholly or not at all.

The strength of this form is that of the file's folder; a stolen disk is a stolen key.
"""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from paroma.kernel.disk import Disk
from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import Randomness
from paroma.trust.keys.log_keys import HeldLogKey
from paroma.trust.keys.signing import HeldKey

MOST_BYTES = 16_384

K = TypeVar("K")


class KeyFileUnsafe(ParomaError):
    """The key file can be read by others, or is no plain file: whoever read it can sign."""


class KeyFileUnreadable(ParomaError):
    """The key file holds no key of the kind that is wanted."""


def load_or_create(path: Path, disk: Disk, randomness: Randomness) -> HeldKey:
    """The ES256 key in `path`; made first where there is none. Raises KeyFileUnsafe, KeyFileUnreadable, OSError."""
    return _load_or_create(path, disk, lambda: HeldKey.fresh(randomness), lambda key: key.private, load)


def load_or_create_log_key(path: Path, disk: Disk, randomness: Randomness) -> HeldLogKey:
    """The Ed25519 key in `path`; made first where there is none. Raises KeyFileUnsafe, KeyFileUnreadable, OSError."""
    return _load_or_create(path, disk, lambda: HeldLogKey.fresh(randomness), lambda key: key.private, load_log_key)


def load(path: Path) -> HeldKey:
    """The ES256 key in `path`. Raises FileNotFoundError, KeyFileUnsafe, KeyFileUnreadable."""
    private = _read(path)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise _unreadable(path, "P-256")
    return HeldKey(private)


def load_log_key(path: Path) -> HeldLogKey:
    """The Ed25519 key in `path`. Raises FileNotFoundError, KeyFileUnsafe, KeyFileUnreadable."""
    private = _read(path)
    if not isinstance(private, Ed25519PrivateKey):
        raise _unreadable(path, "Ed25519")
    return HeldLogKey(private)


def _load_or_create(
    path: Path,
    disk: Disk,
    make: Callable[[], K],
    private: Callable[[K], ec.EllipticCurvePrivateKey | Ed25519PrivateKey],
    read: Callable[[Path], K],
) -> K:
    try:
        return read(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two commands at once would each sign with a key that only one of them kept
        if not path.exists():
            pem = private(make()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            disk.replace(path, pem, mode=0o600)
        return read(path)  # what is used is what is kept, never what was meant to be kept
    finally:
        os.close(folder)


def read(path: Path) -> bytes:
    """The bytes of a key file, at most 16,384. Raises FileNotFoundError, KeyFileUnsafe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise KeyFileUnsafe(
            f"the key file `{path}` cannot be opened", do="make it a plain file of this user"
        ) from problem
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileUnsafe(f"the key file `{path}` is no plain file", do="put a plain file in its place")
        if found.st_mode & 0o077:
            raise KeyFileUnsafe(
                f"others can read the key file `{path}` (mode {stat.S_IMODE(found.st_mode):o})",
                do="take it for stolen: make a new key, and keep it with mode 600",
            )
        return os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)


def _read(path: Path) -> PrivateKeyTypes:
    content = read(path)
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise _unreadable(path, "known") from problem


def _unreadable(path: Path, kind: str) -> KeyFileUnreadable:
    return KeyFileUnreadable(
        f"the file `{path}` holds no {kind} key in PKCS#8", do="bring the file back from its backup"
    )
