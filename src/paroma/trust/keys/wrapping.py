"""Keys that wrap: small secrets, such as a vault's root key, sealed under a key that does not leave its home."""

import os
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.kernel.disk import Disk
from paroma.kernel.randomness import Randomness
from paroma.trust.keys.errors import KeyUnfit, NotWrappedByThis
from paroma.trust.keys.signing import SigningKey

MOST_SECRET: Final = 1024
"""Bytes of one secret: what every home takes in one piece."""

NONCE: Final = 12


class WrappingKey(Protocol):
    """A handle to a key that wraps secrets. purpose: bound to the secret; it unwraps for the same one only."""

    @property
    def uri(self) -> str:
        """Its name."""

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """`secret` (at most 1,024 bytes) sealed; twice the same secret gives different bytes."""

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret. Raises NotWrappedByThis."""

    def destroy(self) -> None:
        """The key is gone, as far as its home can promise (`docs/howto/keep-keys-in-an-hsm.md` has the table)."""

    def close(self) -> None:
        """Let go of its home."""


class OwnedKey(SigningKey, Protocol):
    """A handle to a signing key that can also be ended."""

    @property
    def uri(self) -> str:
        """Its name."""

    def destroy(self) -> None:
        """The key is gone, as far as its home can promise."""

    def close(self) -> None:
        """Let go of its home."""


class FileWrappingKey:
    """AES-256 in GCM (SP 800-38D), the key in a file."""

    __slots__ = ("_disk", "_key", "_path", "_randomness", "uri")

    def __init__(self, path: Path, content: bytes, disk: Disk, randomness: Randomness) -> None:
        if len(content) != 32:
            raise KeyUnfit(
                f"the file `{path}` holds no wrapping key of 32 bytes", do="make one with `paroma key make --use wrap`"
            )
        self.uri, self._path, self._key = f"file:{path}", path, content
        self._disk, self._randomness = disk, randomness

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """Nonce and sealed bytes."""
        return seal(self._key, fit(secret), purpose, self._randomness)

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret. Raises NotWrappedByThis."""
        return unseal(self._key, wrapped, purpose, self.uri)

    def destroy(self) -> None:
        """Overwrite the file in place, then remove it; flash storage may keep the old bytes until it reuses them."""
        overwrite(self._path, self._disk)
        self._key = bytes(32)

    def close(self) -> None:
        """Nothing to let go of."""


def fit(secret: bytes) -> bytes:
    """`secret`, if every home can wrap it. Raises KeyUnfit."""
    if not 0 < len(secret) <= MOST_SECRET:
        raise KeyUnfit(
            f"a secret of {len(secret)} bytes cannot be wrapped, 1 to {MOST_SECRET} can",
            do="wrap a key, and encrypt the data with that key",
        )
    return secret


def seal(key: bytes, secret: bytes, purpose: bytes, randomness: Randomness) -> bytes:
    """AES-GCM under `key` with a random nonce, which stands in front."""
    nonce = randomness.take(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, secret, purpose)


def unseal(key: bytes, wrapped: bytes, purpose: bytes, uri: str) -> bytes:
    """What `seal` sealed. Raises NotWrappedByThis."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE], wrapped[NONCE:], purpose)
    except (InvalidTag, ValueError) as problem:
        raise NotWrappedByThis(uri) from problem


def overwrite(path: Path, disk: Disk) -> None:
    """Zeros in place of the file's bytes, durably, then no file. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    disk.remove(path)
