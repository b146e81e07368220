"""Every seed of an attempt, derived one way from the run's secrets and E, the hash of the attempt's opening entry.

A seed that is given in an answer says nothing about another attempt's, nor about the secret that it came from.
Source: RFC 5869.
"""

import hashlib
import hmac
from collections.abc import Iterable


def expand(secret: bytes, label: bytes, *context: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 of `secret`, bound to a label and a context; each part of it stands behind its length."""
    info = b"paroma/secagg/v1\n" + b"".join(len(part).to_bytes(8, "big") + part for part in (label, *context))
    key = hmac.digest(bytes(32), secret, "sha256")
    out, block, count = b"", b"", 0
    while len(out) < length:
        count += 1
        block = hmac.digest(key, block + info + bytes([count]), "sha256")
        out += block
    return out[:length]


def self_seed(root: bytes, entry: str) -> bytes:
    """b_i: the seed of a site's self mask for this attempt only. root: the site's own secret of the run; entry: E,
    hex.
    """
    return expand(root, b"self", entry.encode())


def pair_seed(secret: bytes, entry: str) -> bytes:
    """s_ij: the seed of a pair's mask for this attempt only. The same at both ends."""
    return expand(secret, b"mask", entry.encode())


def coefficients_key(root: bytes, entry: str, what: str) -> bytes:
    """What the coefficients of a shared secret's polynomial are drawn from. Independent of the secret; so sharing it
    again gives the same shares, and a box that is made twice holds the same bytes.
    """
    return expand(root, b"coefficients", entry.encode(), what.encode())


def commitment(label: str, entry: str, secret: bytes) -> bytes:
    """SHA-256 commitment to a seed or a share. Hiding, because these are 32 bytes that nobody can guess."""
    parts: Iterable[bytes] = (label.encode(), entry.encode(), secret)
    return hashlib.sha256(b"paroma/commitment/v1\n" + b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()
