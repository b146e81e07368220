"""A secret for every pair of sites, agreed through a hub that neither of them trusts. Two trips, once per run.

First trip: every site publishes an X25519 and a KEM public key made for this run, signed by its own key. Second: the
site with the smaller name encapsulates to the other and adds a confirmation. The pair secret needs both shared
secrets, and binds the transcript (all keys with their signatures), so that it falls only if X25519 *and* ML-KEM-768 do.
Sources: RFC 7748 (X25519), FIPS 203 (ML-KEM), RFC 5869 (HKDF); the combination follows draft-ietf-tls-ecdhe-mlkem.

A tampered KEM ciphertext gives another secret and no error (implicit rejection): only the confirmation tells.
"""

from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import Randomness
from paroma.learn.secagg.seeds import expand


class AgreementFailed(BadInput):
    """A key or ciphertext of another site is malformed or was changed on its way: there is no secret with that site."""


class Kem(Protocol):
    """A key encapsulation mechanism over bytes. Malformed input raises ValueError."""

    def generate(self, randomness: Randomness) -> tuple[bytes, bytes]:
        """(private, public)."""

    def encapsulate(self, public: bytes, randomness: Randomness) -> tuple[bytes, bytes]:
        """(shared secret of 32 bytes, ciphertext)."""

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        """The shared secret of 32 bytes; another one, without an error, for a ciphertext that was changed."""


class MlKem768:
    """ML-KEM-768 (FIPS 203). The private key is its 64-byte seed; encapsulation takes the library's own randomness."""

    def generate(self, randomness: Randomness) -> tuple[bytes, bytes]:
        """(private 64 bytes, public 1,184 bytes)."""
        seed = randomness.take(64)
        return seed, mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()

    def encapsulate(self, public: bytes, randomness: Randomness) -> tuple[bytes, bytes]:  # noqa: ARG002  # the library draws its own
        """(secret 32 bytes, ciphertext 1,088 bytes)."""
        return mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()

    def decapsulate(self, private: bytes, ciphertext: bytes) -> bytes:
        """The secret, 32 bytes."""
        return mlkem.MLKEM768PrivateKey.from_seed_bytes(private).decapsulate(ciphertext)


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralKeys:
    """A site's keys for one run. Private parts never leave it, and go when the run ends."""

    x25519_private: bytes
    kem_private: bytes
    x25519: bytes
    kem: bytes


def make_keys(kem: Kem, randomness: Randomness) -> EphemeralKeys:
    """Fresh keys for one run."""
    private = randomness.take(32)
    kem_private, kem_public = kem.generate(randomness)
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return EphemeralKeys(x25519_private=private, kem_private=kem_private, x25519=public, kem=kem_public)


def offer(
    kem: Kem, mine: EphemeralKeys, *, x25519: bytes, public: bytes, context: bytes, randomness: Randomness
) -> tuple[bytes, bytes, bytes]:
    """(pair secret, KEM ciphertext, confirmation), made by the site with the smaller name. Raises AgreementFailed.

    x25519, public: the other's keys. context: binds run, transcript, sender, receiver.
    """
    try:
        shared, ciphertext = kem.encapsulate(public, randomness)
        both = _exchange(mine.x25519_private, x25519) + shared
    except ValueError as problem:
        raise _failed() from problem
    secret = expand(both, b"pair", context, ciphertext)
    return secret, ciphertext, AESGCM(expand(secret, b"confirm")).encrypt(bytes(12), b"", context)


def accept(
    kem: Kem, mine: EphemeralKeys, *, x25519: bytes, ciphertext: bytes, confirmation: bytes, context: bytes
) -> bytes:
    """The pair secret, made by the site with the greater name. Raises AgreementFailed unless the confirmation opens."""
    try:
        both = _exchange(mine.x25519_private, x25519) + kem.decapsulate(mine.kem_private, ciphertext)
        secret = expand(both, b"pair", context, ciphertext)
        AESGCM(expand(secret, b"confirm")).decrypt(bytes(12), confirmation, context)
    except (ValueError, InvalidTag) as problem:
        raise _failed() from problem
    return secret


def _exchange(private: bytes, public: bytes) -> bytes:
    # a point of low order raises ValueError here: the secret would be zeros
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def _failed() -> AgreementFailed:
    return AgreementFailed(
        "no secret could be agreed with another site", do="set the run up again, or leave that site out"
    )
