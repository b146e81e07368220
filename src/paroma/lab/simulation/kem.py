"""A key encapsulation that follows a seed in both directions, for simulations and tests. It protects nothing."""

import hashlib

from paroma.kernel.randomness import Randomness


class SeededKem:
    """A `learn.secagg.agreement.Kem` without any secret: whoever sees the public key has the shared secret.

    ML-KEM draws its encapsulation from the library's own randomness, which no seed reaches.
    """

    def generate(self, randomness: Randomness) -> tuple[bytes, bytes]:
        """(private 32 bytes, public 32 bytes)."""
        private = randomness.take(32)
        return private, hashlib.sha256(private).digest()

    def encapsulate(self, public: bytes, randomness: Randomness) -> tuple[bytes, bytes]:
        """(secret 32 bytes, ciphertext 32 bytes). Raises ValueError."""
        if len(public) != 32:  # a hash
            raise ValueError("not 32 bytes")
        ciphertext = randomness.take(32)
        return hashlib.sha256(public + ciphertext).digest(), ciphertext

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        """The secret, 32 bytes."""
        return hashlib.sha256(hashlib.sha256(private).digest() + ciphertext).digest()
