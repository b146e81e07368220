"""A statement: a small frozen struct, its canonical JSON, and one ES256 signature over a domain and that JSON.

The domain (`paroma/join/v1`) keeps a signature for one purpose from being shown for another.
"""

from typing import Final, TypeVar

import msgspec

from paroma.kernel import canonical
from paroma.trust.keys.signing import PublicKey, SigningKey

T = TypeVar("T", bound=msgspec.Struct)

MOST_BYTES: Final = 16_384
_LIMITS: Final = canonical.Limits(most_bytes=MOST_BYTES, most_depth=6, most_items=200)


class Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A statement as it travels and is kept: its text to the byte, and the signature over domain and text."""

    statement: str  # canonical JSON
    signature: bytes  # r and s, 64 bytes; base64 in JSON


def sign(domain: str, statement: msgspec.Struct, key: SigningKey) -> bytes:
    """`statement` and its signature, as JSON."""
    text = canonical.encode(statement)
    return canonical.encode(Signed(statement=text.decode(), signature=key.sign(_under(domain, text))))


def read(data: bytes, kind: type[T]) -> tuple[T, Signed]:
    """Take a signed statement apart; its signature is not verified yet. Raises NotStrictJson."""
    signed = canonical.decode_as(data, Signed, limits=_LIMITS)
    return canonical.decode_as(signed.statement.encode(), kind, limits=_LIMITS), signed


def verify(domain: str, signed: Signed, key: PublicKey) -> None:
    """Check the signature. Raises SignatureInvalid."""
    key.verify(_under(domain, signed.statement.encode()), signed.signature)


def _under(domain: str, text: bytes) -> bytes:
    return domain.encode() + b"\n" + text
