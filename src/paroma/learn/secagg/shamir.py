"""Shamir's sharing of a 32-byte secret over the integers modulo P = 2^256 + 297, the least prime above 2^256.

Any t of the n shares give the secret; fewer say nothing about it. Source: Shamir 1979, "How to share a secret".
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from paroma.kernel.errors import BadInput

P = 2**256 + 297
SHARE_BYTES = 33
_DRAW = 48  # 384 random bits modulo P: biased by less than 2^-127


class SharesInvalid(BadInput):
    """These shares are too few, malformed, or of no 32-byte secret."""


def threshold(n: int) -> int:
    """t: the least number of shares that open a secret of n sites, more than two thirds of them."""
    return 2 * n // 3 + 1


def split(secret: bytes, n: int, t: int, key: bytes) -> tuple[bytes, ...]:
    """As many as n shares of `secret`, the one at position x - 1 for the point x = 1..n; the t - 1 coefficients are
    drawn from `key`.
    """
    if len(secret) != 32 or not 1 <= t <= n:
        raise SharesInvalid("only 32 bytes can be shared, and the threshold is at most n", do="share a seed")
    drawn = hashlib.shake_256(b"paroma/shamir/v1\n" + key).digest(_DRAW * (t - 1))
    terms = [int.from_bytes(drawn[i : i + _DRAW], "big") % P for i in range(0, len(drawn), _DRAW)]
    a = int.from_bytes(secret, "big")
    out = []
    for x in range(1, n + 1):
        y = 0
        for term in reversed(terms):
            y = (y * x + term) % P
        out.append(((y * x + a) % P).to_bytes(SHARE_BYTES, "big"))
    return tuple(out)


def combine(shares: Mapping[int, bytes], t: int) -> bytes:
    """The secret from the shares at the points x -> share; the t with the least x are taken. Raises SharesInvalid."""
    points = tuple(sorted(shares)[:t])
    if len(points) < t or any(len(shares[x]) != SHARE_BYTES or x < 1 for x in points):
        raise SharesInvalid(f"fewer than {t} readable shares", do="wait for more answers")
    a = sum(int.from_bytes(shares[x], "big") * weight for x, weight in zip(points, _weights(points), strict=True)) % P
    if a >= 2**256:
        raise SharesInvalid("the shares are of no secret", do="leave out the shares of one site after the other")
    return a.to_bytes(32, "big")


@lru_cache(maxsize=256)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at zero."""
    out = []
    for i in points:
        above, below = 1, 1
        for j in points:
            if j != i:
                above, below = above * j % P, below * (j - i) % P
        out.append(above * pow(below, -1, P) % P)
    return tuple(out)
