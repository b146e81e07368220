"""ES256: signatures with P-256 and SHA-256, as handles.

A key that this process holds signs deterministically (RFC 6979): the same key and bytes give the same 64 bytes, and no weak
random number can betray the key. A key that lives elsewhere signs with random numbers of its home's, so nobody may rely on
two signatures being equal.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import Randomness

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the base point of P-256 (SP 800-186, 3.2.1.3)."""

_THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


class SignatureInvalid(Refused):
    """The signature was not made with this key over these bytes."""


class KeyInvalid(BadInput):
    """What should be a public key is none."""


class SigningKey(Protocol):
    """A handle to a P-256 key that signs. Where the private number lives is its own affair."""

    @property
    def public(self) -> "PublicKey":
        """The public half."""

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half: 43 letters of base64url."""

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK: kty, crv, x, y."""

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`: r and s, 32 bytes each."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A point on P-256: 0x04, x, y (65 bytes)."""

    point: bytes

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> "PublicKey":
        """Read a public JWK (RFC 7518, 6.2). A private one is refused, other members are ignored. Raises KeyInvalid."""
        if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
            raise KeyInvalid(
                "the key is not on the curve P-256", do="make the key with `paroma login` or `paroma site join`"
            )
        if "d" in jwk:
            raise KeyInvalid("the key holds its private half", do="send only kty, crv, x and y, and make a new key")
        return cls.from_point(b"\x04" + _coordinate(jwk.get("x")) + _coordinate(jwk.get("y")))

    @classmethod
    def from_point(cls, point: bytes) -> "PublicKey":
        """Read an uncompressed point. Raises KeyInvalid where it is not on the curve."""
        if len(point) != 65:
            raise KeyInvalid("the key is not 65 bytes long", do="send an uncompressed point")
        try:
            _loaded(point)
        except ValueError as problem:
            raise KeyInvalid("the key is no point of P-256", do="send the key as it was made") from problem
        return cls(point)

    @property
    def jwk(self) -> dict[str, str]:
        """kty, crv, x, y (RFC 7518, 6.2.1)."""
        return {"kty": "EC", "crv": "P-256", "x": base64url(self.point[1:33]), "y": base64url(self.point[33:])}

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint: 43 letters of base64url."""
        return thumbprint(self.jwk)

    def verify(self, data: bytes, signature: bytes) -> None:
        """Check an ES256 signature (r and s, 64 bytes) over `data`. Raises SignatureInvalid."""
        if len(signature) != 64:
            raise _invalid("the signature is not 64 bytes long")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            _loaded(self.point).verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise _invalid("the signature does not belong to these bytes and this key") from None


class HeldKey:
    """A key whose private number this process holds."""

    __slots__ = ("_private", "public")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private.curve, ec.SECP256R1):
            raise KeyInvalid("the key is not on the curve P-256", do="make a new key")
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    @classmethod
    def fresh(cls, randomness: Randomness) -> "HeldKey":
        """A new key: 320 random bits reduced to 1 ... order - 1 (FIPS 186-5, A.2.1); a seed gives one key."""
        number = int.from_bytes(randomness.take(40), "big") % (ORDER - 1) + 1
        return cls(ec.derive_private_key(number, ec.SECP256R1()))

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half."""
        return self.public.thumbprint

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return self.public.jwk

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """For the room that stores it, and for nobody else."""
        return self._private

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`, deterministic (RFC 6979): r and s, 32 bytes each."""
        r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw(der: bytes) -> bytes:
    """The numbers r and s, 32 bytes each (RFC 7518, 3.4), of a signature in DER. Raises ValueError."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def thumbprint(jwk: Mapping[str, object]) -> str:
    """SHA-256 of the required members in lexical order, base64url (RFC 7638, section 3). Raises KeyInvalid."""
    members = _THUMBPRINT_MEMBERS.get(str(jwk.get("kty")))
    if members is None or not all(isinstance(jwk.get(member), str) for member in members):
        raise KeyInvalid("the key lacks a member that names it", do="send a whole JWK of kind EC, OKP or RSA")
    text = json.dumps({member: jwk[member] for member in members}, separators=(",", ":"), ensure_ascii=False)
    return base64url(hashlib.sha256(text.encode()).digest())


def digest(data: bytes) -> bytes:
    """What ES256 signs: SHA-256."""
    return hashlib.sha256(data).digest()


def base64url(data: bytes) -> str:
    """Base64 for URLs without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _coordinate(text: object) -> bytes:
    if isinstance(text, str) and len(text) == 43:
        try:
            number = base64.b64decode(text + "=", altchars=b"-_", validate=True)
        except ValueError:
            number = b""
        if base64url(number) == text:  # one spelling only: a second one would be a second name for the same key
            return number
    raise KeyInvalid("a coordinate of the key is not 32 bytes in base64url", do="send the key as it was made")


@functools.lru_cache(maxsize=1024)
def _loaded(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def _invalid(message: str) -> SignatureInvalid:
    return SignatureInvalid(message, do="sign the same bytes with the key that was enrolled")
