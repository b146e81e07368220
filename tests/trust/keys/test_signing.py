import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import SeededRandomness
from paroma.trust.keys.signing import ORDER, HeldKey, KeyInvalid, PublicKey, SignatureInvalid, thumbprint

KEY = HeldKey.fresh(SeededRandomness(1))


@pytest.mark.data
@pytest.mark.promise(3)
def test_thumbprints_are_those_of_the_published_examples(published):
    cases = json.loads((published / "vectors/jose/jwk_thumbprints.json").read_text())
    assert len(cases) >= 3
    for case in cases:
        assert thumbprint(case["jwk"]) == case["sha256"], case["source"]


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("message", "r", "s"),
    [
        (
            b"sample",
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
            "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            b"test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
            "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
    ],
)
def test_signatures_are_those_of_rfc_6979_appendix_a_2_5(message, r, s):
    number = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = HeldKey(ec.derive_private_key(number, ec.SECP256R1()))
    assert key.sign(message).hex().upper() == r + s
    key.public.verify(message, key.sign(message))


@pytest.mark.promise(3)
@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 511))
def test_no_flipped_bit_of_a_signature_passes(data, bit):
    signature = bytearray(KEY.sign(data))
    KEY.public.verify(data, bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureInvalid):
        KEY.public.verify(data, bytes(signature))
    with pytest.raises(SignatureInvalid):
        KEY.public.verify(data + b".", KEY.sign(data))


@pytest.mark.promise(3)
@pytest.mark.parametrize("signature", [b"", bytes(64), b"\xff" * 64, bytes(63), KEY.sign(b"x") + b"\0"])
def test_what_is_no_signature_is_refused(signature):
    with pytest.raises(SignatureInvalid):
        KEY.public.verify(b"x", signature)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "change",
    [
        {"kty": "OKP"},
        {"crv": "P-384"},
        {"x": KEY.public_jwk["y"]},
        {"x": ""},
        {"x": 7},
        {"x": "A" * 42 + "!"},
        {"x": KEY.public_jwk["x"] + "="},
        {"y": "A" * 43},
        {"y": KEY.public_jwk["y"][:-1] + "_"},
        {"d": KEY.public_jwk["x"]},
    ],
)
def test_what_is_no_public_key_is_refused(change):
    with pytest.raises(KeyInvalid):
        PublicKey.from_jwk(KEY.public_jwk | change)


@pytest.mark.promise(3)
def test_points_and_keys_of_other_curves_are_refused():
    with pytest.raises(KeyInvalid):
        PublicKey.from_point(KEY.public.point[:-1])
    with pytest.raises(KeyInvalid):
        HeldKey(ec.generate_private_key(ec.SECP384R1()))
    for jwk in ({}, {"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-256", "x": "AA"}):
        with pytest.raises(KeyInvalid):
            thumbprint(jwk)


@pytest.mark.promise(3)
def test_a_key_travels_as_a_jwk_and_keeps_its_name():
    read = PublicKey.from_jwk(KEY.public_jwk | {"kid": "anything", "use": "sig"})
    assert read == KEY.public
    assert read.thumbprint == KEY.thumbprint == thumbprint(KEY.public_jwk)


def test_a_seed_gives_the_same_key_and_another_seed_another():
    assert HeldKey.fresh(SeededRandomness(1)).public == KEY.public != HeldKey.fresh(SeededRandomness(2)).public


def test_the_order_is_that_of_the_curve():
    with pytest.raises(ValueError):
        ec.derive_private_key(ORDER, ec.SECP256R1())
    ec.derive_private_key(ORDER - 1, ec.SECP256R1())
