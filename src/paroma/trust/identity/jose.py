"""Compact JWS (RFC 7515), as narrow as this house needs it: ES256, one signature, a header of known members only.

Every member of a header that could choose a key or an algorithm (`kid`, `jku`, `x5u`, `x5c`, `crit`, `zip`, `b64`,
`p2c`) is refused because it is not one of ours: nothing in a token is negotiated. We read the text ourselves, and do
not use `joserfc` for it, because a general library keeps the last of two equal member names and passes unknown header
members on to the caller; it is the second implementation that the tests compare this one with.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, ParomaError
from paroma.trust.keys.signing import PublicKey, SigningKey

ALGORITHM = "ES256"
MOST_CHARACTERS = 4_096  # ours are under 800; a longer one is nobody's token
JWK_MEMBERS = frozenset({"kty", "crv", "x", "y"})
_PART = re.compile(r"[A-Za-z0-9_-]+")


class TokenUnreadable(BadInput):
    """A text that is not a JWS of ours. Nothing in it was believed."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the signed text cannot be read: {why}", do="make a fresh one with this version of the program"
        )


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS that was taken apart. Nothing is verified until `signed_by` returns."""

    header: Mapping[str, object]
    claims: Mapping[str, object]
    signed: bytes  # the bytes under the signature
    signature: bytes  # 64 bytes, r and s

    def signed_by(self, key: PublicKey) -> None:
        """Check the signature. Raises SignatureInvalid."""
        key.verify(self.signed, self.signature)

    def text(self, name: str, *, longest: int = 512) -> str:
        """The claim `name`, a text that is not empty. Raises TokenUnreadable."""
        value = self.claims.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= longest:
            raise TokenUnreadable(f"`{name}` must be a text of 1 to {longest} characters")
        return value

    def number(self, name: str) -> int:
        """The claim `name`, a whole number. Raises TokenUnreadable."""
        value = self.claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TokenUnreadable(f"`{name}` must be a whole number")
        return value


def write(typ: str, claims: Mapping[str, object], key: SigningKey, *, jwk: bool = False) -> str:
    """`claims` as a compact JWS of this `typ`, signed by `key`; `jwk`: with its public JWK in the header."""
    header: dict[str, object] = {"alg": ALGORITHM, "typ": typ}
    if jwk:
        header["jwk"] = dict(key.public_jwk)
    signed = f"{to_text(canonical.encode(header))}.{to_text(canonical.encode(dict(claims)))}"
    return f"{signed}.{to_text(key.sign(signed.encode()))}"


def read(compact: str, typ: str, *, jwk: bool = False) -> Jws:
    """Take a compact JWS apart whose header is exactly `alg`, `typ` (and `jwk` where it is expected).

    Raises TokenUnreadable for anything else: another algorithm or type, members of the header that are not ours,
    equal member names, text after the JSON, base64 that is not the shortest form.
    """
    if len(compact) > MOST_CHARACTERS:
        raise TokenUnreadable(f"it is longer than {MOST_CHARACTERS} characters")
    parts = compact.split(".")
    if len(parts) != 3:
        raise TokenUnreadable("it does not have three parts")
    head, body, tail = (from_text(part) for part in parts)
    header, claims = _members(head, "header"), _members(body, "claims")
    if header.get("alg") != ALGORITHM:
        raise TokenUnreadable(f"its algorithm must be {ALGORITHM}")
    if header.get("typ") != typ:
        raise TokenUnreadable(f"its type must be `{typ}`")
    if header.keys() != ({"alg", "typ", "jwk"} if jwk else {"alg", "typ"}):
        raise TokenUnreadable("its header has members that are not known here, or lacks one")
    if len(tail) != 64:
        raise TokenUnreadable("its signature must be 64 bytes long")
    return Jws(header, claims, compact[: compact.rindex(".")].encode(), tail)


def header_key(jws: Jws) -> PublicKey:
    """The public P-256 key in the header of `jws`.

    Raises TokenUnreadable: other kinds, private parts, points off the curve.
    """
    jwk = jws.header.get("jwk")
    if not isinstance(jwk, dict):
        raise TokenUnreadable("`jwk` must be an object")
    return public_key(jwk)


def public_key(jwk: Mapping[str, object]) -> PublicKey:
    """A public P-256 key from its JWK, which has the four members `kty`, `crv`, `x`, `y` and no other.

    Raises TokenUnreadable.
    """
    if jwk.keys() != JWK_MEMBERS or jwk["kty"] != "EC" or jwk["crv"] != "P-256":
        raise TokenUnreadable("the key must be a public P-256 key with the members kty, crv, x and y only")
    members = {name: value for name, value in jwk.items() if isinstance(value, str)}
    if len(members) != len(jwk) or any(len(from_text(members[name])) != 32 for name in ("x", "y")):
        raise TokenUnreadable("the coordinates of the key must be 32 bytes each")
    try:
        return PublicKey.from_jwk(members)
    except ParomaError as problem:
        raise TokenUnreadable("the key is not a point of the curve P-256") from problem


def to_text(data: bytes) -> str:
    """Base64url without padding (RFC 7515, appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes of base64url without padding, in its one shortest form. Raises TokenUnreadable."""
    if not _PART.fullmatch(text):
        raise TokenUnreadable("a part is not base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as problem:
        raise TokenUnreadable("a part is not base64url") from problem
    if to_text(data) != text:  # other trailing bits would give one token many texts, and slip past what was seen
        raise TokenUnreadable("a part is not in the shortest form of base64url")
    return data


def _members(data: bytes, what: str) -> Mapping[str, object]:
    try:
        value = canonical.decode(data)
    except BadInput as problem:
        raise TokenUnreadable(f"its {what} are not strict JSON") from problem
    if not isinstance(value, dict):
        raise TokenUnreadable(f"its {what} must be an object")
    return value
