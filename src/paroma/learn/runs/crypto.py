"""The cryptography that the two machines are given: a port, and its real form over `learn/secagg`.

It is a port so that the explorer in the tests can drive the machines with symbols in place of numbers, and the
simulation with a key encapsulation that follows its seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from paroma.kernel.errors import ParomaError
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.learn.secagg import agreement, sealing, seeds, shamir
from paroma.learn.secagg.agreement import EphemeralKeys, Kem


class VerifyingKey(Protocol):
    """A site's public key, as the federation log admits it."""

    @property
    def thumbprint(self) -> str:
        """RFC 7638."""

    def verify(self, data: bytes, signature: bytes) -> None:
        """Raises a ParomaError unless `signature` is this key's over `data`."""


class Checks(Protocol):
    """What both machines need."""

    def now(self) -> float:
        """Unix time, s."""

    def thumbprint(self, site: SiteId) -> str | None:
        """Of the key that this site signs with, as the federation log admits it; None for a stranger."""

    def verify(self, site: SiteId, data: bytes, signature: bytes) -> bool:
        """Whether the site signed exactly this."""

    def commit(self, label: str, entry: str, secret: bytes) -> bytes:
        """A commitment of 32 bytes to a seed or share."""


class HubCrypto(Checks, Protocol):
    """What the hub's machine needs."""

    def checkpoint(self) -> str:
        """The federation log's latest checkpoint that a quorum of the participants has cosigned; opaque here."""

    def combine(self, shares: Mapping[int, bytes], t: int) -> bytes:
        """The secret from t shares, x -> share. Raises a ParomaError."""


class SiteCrypto(Checks, Protocol):
    """What a site's machine needs. Whatever depends on E is one-way in it."""

    def sign(self, data: bytes) -> bytes:
        """Under the site's own key."""

    def fresh_root(self) -> bytes:
        """32 random bytes: the site's own secret of a run."""

    def make_keys(self) -> EphemeralKeys:
        """Fresh keys for a run."""

    def offer(self, mine: EphemeralKeys, *, x25519: bytes, kem: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
        """(pair secret, ciphertext, confirmation). Raises a ParomaError."""

    def accept(
        self, mine: EphemeralKeys, *, x25519: bytes, ciphertext: bytes, confirmation: bytes, context: bytes
    ) -> bytes:
        """The pair secret. Raises a ParomaError."""

    def self_seed(self, root: bytes, entry: str) -> bytes:
        """The self mask's seed b for this attempt."""

    def pair_seed(self, secret: bytes, entry: str) -> bytes:
        """The seed s for this pair and attempt."""

    def split(self, secret: bytes, *, n: int, t: int, root: bytes, entry: str, what: str) -> tuple[bytes, ...]:
        """As many as n shares with threshold t; the same arguments give the same shares."""

    def seal(
        self, secret: bytes, plaintext: bytes, *, entry: str, sender: SiteId, receiver: SiteId, what: str
    ) -> bytes:
        """A box; the same arguments give the same box."""

    def open_box(self, secret: bytes, box: bytes, *, entry: str, sender: SiteId, receiver: SiteId, what: str) -> bytes:
        """What is in it. Raises a ParomaError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifying:
    """What the real `HubCrypto` and `SiteCrypto` share."""

    keys: Mapping[SiteId, VerifyingKey]
    clock: Callable[[], float]

    def now(self) -> float:
        """Unix time, s."""
        return self.clock()

    def thumbprint(self, site: SiteId) -> str | None:
        """Of the key that is pinned for the site."""
        key = self.keys.get(site)
        return None if key is None else key.thumbprint

    def verify(self, site: SiteId, data: bytes, signature: bytes) -> bool:
        """Whether the site signed exactly this."""
        key = self.keys.get(site)
        if key is None:
            return False
        try:
            key.verify(data, signature)
        except ParomaError:
            return False
        return True

    def commit(self, label: str, entry: str, secret: bytes) -> bytes:
        """SHA-256."""
        return seeds.commitment(label, entry, secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combining(Verifying):
    """The real `HubCrypto`. cosigned: the latest checkpoint with a quorum of cosignatures."""

    cosigned: Callable[[], str]

    def checkpoint(self) -> str:
        """As the log has it at this moment."""
        return self.cosigned()

    def combine(self, shares: Mapping[int, bytes], t: int) -> bytes:
        """Lagrange. Raises SharesInvalid."""
        return shamir.combine(shares, t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing(Verifying):
    """The real `SiteCrypto`."""

    signer: Callable[[bytes], bytes]
    kem: Kem
    randomness: Randomness

    def sign(self, data: bytes) -> bytes:
        """ES256."""
        return self.signer(data)

    def fresh_root(self) -> bytes:
        """32 random bytes."""
        return self.randomness.take(32)

    def make_keys(self) -> EphemeralKeys:
        """X25519 and KEM keys."""
        return agreement.make_keys(self.kem, self.randomness)

    def offer(self, mine: EphemeralKeys, *, x25519: bytes, kem: bytes, context: bytes) -> tuple[bytes, bytes, bytes]:
        """Raises AgreementFailed."""
        return agreement.offer(self.kem, mine, x25519=x25519, public=kem, context=context, randomness=self.randomness)

    def accept(
        self, mine: EphemeralKeys, *, x25519: bytes, ciphertext: bytes, confirmation: bytes, context: bytes
    ) -> bytes:
        """Raises AgreementFailed."""
        return agreement.accept(
            self.kem, mine, x25519=x25519, ciphertext=ciphertext, confirmation=confirmation, context=context
        )

    def self_seed(self, root: bytes, entry: str) -> bytes:
        """HKDF."""
        return seeds.self_seed(root, entry)

    def pair_seed(self, secret: bytes, entry: str) -> bytes:
        """HKDF."""
        return seeds.pair_seed(secret, entry)

    def split(self, secret: bytes, *, n: int, t: int, root: bytes, entry: str, what: str) -> tuple[bytes, ...]:
        """Shamir, with coefficients drawn from the site's root."""
        return shamir.split(secret, n, t, seeds.coefficients_key(root, entry, what))

    def seal(
        self, secret: bytes, plaintext: bytes, *, entry: str, sender: SiteId, receiver: SiteId, what: str
    ) -> bytes:
        """AES-256-GCM."""
        return sealing.seal(secret, plaintext, entry=entry, sender=sender, receiver=receiver, what=what)

    def open_box(self, secret: bytes, box: bytes, *, entry: str, sender: SiteId, receiver: SiteId, what: str) -> bytes:
        """Raises BoxBroken."""
        return sealing.open_box(secret, box, entry=entry, sender=sender, receiver=receiver, what=what)
