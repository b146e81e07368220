import contextlib
import itertools

import pytest
from hypothesis import given, settings, strategies as st

from paroma.learn.secagg.shamir import SHARE_BYTES, P, SharesInvalid, combine, split, threshold

SECRET = bytes(range(32))


def probably_prime(number, bases):
    """Miller and Rabin."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, number)
        if x in (1, number - 1):
            continue
        if all((x := x * x % number) != number - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_modulus_is_the_least_prime_above_2_to_the_256():
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    assert [d for d in range(1, 298) if probably_prime(2**256 + d, bases)] == [297]
    assert P == 2**256 + 297


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_any_t_shares_give_the_secret(secret, n, data):
    t = data.draw(st.integers(1, n))
    shares = split(secret, n, t, b"key")
    chosen = data.draw(st.permutations(range(1, n + 1)))[: data.draw(st.integers(t, n))]
    assert combine({x: shares[x - 1] for x in chosen}, t) == secret
    assert all(len(share) == SHARE_BYTES for share in shares)


def test_the_largest_secret_can_be_shared():
    secret = b"\xff" * 32
    assert combine(dict(enumerate(split(secret, 4, 3, b"key"), 1)), 3) == secret


@pytest.mark.promise(1)
def test_fewer_than_t_shares_fit_every_secret():
    """For each other secret there is a polynomial through the same t - 1 shares, so they say nothing."""
    n, t = 5, 4
    shares = split(SECRET, n, t, b"key")
    for chosen in itertools.combinations(range(1, n + 1), t - 1):
        with pytest.raises(SharesInvalid):
            combine({x: shares[x - 1] for x in chosen}, t)
        points = {0: 12345, **{x: int.from_bytes(shares[x - 1], "big") for x in chosen}}
        missing = next(x for x in range(1, n + 1) if x not in chosen)
        value = 0  # Lagrange at the missing point, through the other secret
        for i, y in points.items():
            weight = 1
            for j in points:
                if j != i:
                    weight = weight * (missing - j) * pow(i - j, -1, P) % P
            value = (value + y * weight) % P
        forged = {**{x: shares[x - 1] for x in chosen}, missing: value.to_bytes(33, "big")}
        assert combine(forged, t) == (12345).to_bytes(32, "big")


def test_sharing_again_gives_the_same_shares_and_another_key_gives_others():
    assert split(SECRET, 5, 4, b"key") == split(SECRET, 5, 4, b"key")
    assert set(split(SECRET, 5, 4, b"key")).isdisjoint(split(SECRET, 5, 4, b"other"))


@pytest.mark.parametrize("bad", [b"", b"\xff" * 33, b"x" * 32])
def test_a_malformed_share_is_refused_or_gives_another_secret(bad):
    shares = dict(enumerate(split(SECRET, 4, 3, b"key"), 1))
    shares[1] = bad
    with contextlib.suppress(SharesInvalid):
        assert combine(shares, 3) != SECRET


@pytest.mark.parametrize(("n", "t"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (16, 11), (128, 86)])
def test_the_threshold_is_more_than_two_thirds(n, t):
    assert threshold(n) == t
    assert 3 * t > 2 * n
    assert 3 * (n - t) < n
