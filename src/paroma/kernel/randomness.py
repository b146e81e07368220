"""Random bytes as a parameter: from the operating system in the programs, from a seed in the simulation."""

import hashlib
import secrets
from typing import Protocol


class Randomness(Protocol):
    """A source of bytes that nobody can guess."""

    def take(self, n: int) -> bytes:
        """`n` fresh random bytes."""


class OsRandomness:
    """The operating system's generator. The only one that may guard a secret."""

    def take(self, n: int) -> bytes:
        """`n` fresh random bytes."""
        return secrets.token_bytes(n)


class SeededRandomness:
    """Reproducible bytes for the simulation and for tests: SHAKE-256 over seed, name and a counter."""

    def __init__(self, seed: int, name: str = "") -> None:
        self._prefix = f"{seed}/{name}/".encode()
        self._count = 0

    def take(self, n: int) -> bytes:
        """The next `n` bytes of this stream."""
        self._count += 1
        return hashlib.shake_256(self._prefix + self._count.to_bytes(8, "big")).digest(n)
