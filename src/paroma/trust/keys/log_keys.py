"""Ed25519 (RFC 8032): the keys that sign checkpoints and cosignatures, because C2SP's notes know no other."""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paroma.kernel.randomness import Randomness


class LogKey(Protocol):
    """A handle to an Ed25519 key that signs."""

    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""

    def sign(self, data: bytes) -> bytes:
        """Signature over `data`, 64 bytes; the same bytes give the same signature."""


class HeldLogKey:
    """An Ed25519 key whose seed this process holds."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    @classmethod
    def fresh(cls, randomness: Randomness) -> "HeldLogKey":
        """A new key from 32 random bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(randomness.take(32)))

    @property
    def private(self) -> Ed25519PrivateKey:
        """For the room that stores it, and for nobody else."""
        return self._private

    def sign(self, data: bytes) -> bytes:
        """Signature over `data`, 64 bytes."""
        return self._private.sign(data)
