import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given, strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.identity import jose
from paroma.trust.keys.signing import HeldKey

KEY = HeldKey.fresh(SeededRandomness(1, "jose"))
TYP = "at+jwt"
GOOD = jose.write(TYP, {"sub": "site-1"}, KEY)


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


def signed(header, claims='{"sub":"site-1"}'):
    text = f"{b64(header)}.{b64(claims)}"
    return f"{text}.{b64(KEY.sign(text.encode()))}"


def hs256(header):
    text = f"{b64(header)}.{b64('{}')}"
    secret = json.dumps(KEY.public_jwk).encode()
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


NONE = '{"alg":"none","typ":"at+jwt"}'
ATTACKS = {
    "unsecured": f"{b64(NONE)}.{b64('{}')}.",
    "unsecured, other case": f"{b64(NONE.replace('none', 'nOnE'))}.{b64('{}')}.",
    "the public key as a shared secret": hs256('{"alg":"HS256","typ":"at+jwt"}'),
    "a 32-byte signature": hs256('{"alg":"ES256","typ":"at+jwt"}'),
    "another curve": signed('{"alg":"ES384","typ":"at+jwt"}'),
    "password encryption with a dear count": signed('{"alg":"PBES2-HS256+A128KW","p2c":1000000000,"typ":"at+jwt"}'),
    "key by address": signed('{"alg":"ES256","typ":"at+jwt","jku":"https://evil.example/keys"}'),
    "certificate by address": signed('{"alg":"ES256","typ":"at+jwt","x5u":"https://evil.example/c"}'),
    "certificate inside": signed('{"alg":"ES256","typ":"at+jwt","x5c":["AA=="]}'),
    "key id that is a path": signed('{"alg":"ES256","typ":"at+jwt","kid":"../../dev/null"}'),
    "own key in a token": signed(json.dumps({"alg": "ES256", "typ": "at+jwt", "jwk": KEY.public_jwk})),
    "compressed": signed('{"alg":"ES256","typ":"at+jwt","zip":"DEF"}'),
    "critical extension": signed('{"alg":"ES256","typ":"at+jwt","crit":["exp"],"exp":1}'),
    "unencoded payload": signed('{"alg":"ES256","typ":"at+jwt","b64":false}'),
    "another type": signed('{"alg":"ES256","typ":"dpop+jwt"}'),
    "no type": signed('{"alg":"ES256"}'),
    "algorithm twice": signed('{"alg":"none","alg":"ES256","typ":"at+jwt"}'),
    "claim twice": signed('{"alg":"ES256","typ":"at+jwt"}', '{"sub":"a","sub":"b"}'),
    "claims are a list": signed('{"alg":"ES256","typ":"at+jwt"}', "[]"),
    "not a number": signed('{"alg":"ES256","typ":"at+jwt"}', '{"exp":NaN}'),
    "something after the claims": signed('{"alg":"ES256","typ":"at+jwt"}', "{} {}"),
    "padded": GOOD + "==",
    "standard alphabet": GOOD[:-1] + "+",
    "white space": GOOD + "\n",
    "five parts": GOOD + ".a.b",
    "two parts": GOOD.rsplit(".", 1)[0],
    "empty": "",
    "very long": "a" * 5000,
    "deep": signed('{"alg":"ES256","typ":"at+jwt"}', "[" * 900 + "]" * 900),
}


@pytest.mark.promise(3)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_is_not_one_of_our_tokens_is_not_even_read(attack):
    with pytest.raises(jose.TokenUnreadable):
        jose.read(attack, TYP)


@pytest.mark.promise(3)
def test_the_same_signature_in_another_spelling_is_refused():
    head, body, tail = GOOD.split(".")
    other = tail[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[tail[-1]]  # the same bytes: only unused bits differ
    assert base64.urlsafe_b64decode(other + "==") == base64.urlsafe_b64decode(tail + "==")
    with pytest.raises(jose.TokenUnreadable):
        jose.read(f"{head}.{body}.{other}", TYP)


@pytest.mark.promise(3)
@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_no_letter_of_a_token_can_be_changed(at, letter):
    changed = GOOD[:at] + letter + GOOD[at + 1 :]
    if changed != GOOD:
        with pytest.raises(ParomaError):
            jose.read(changed, TYP).signed_by(KEY.public)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(-(2**53) + 1, 2**53 - 1), max_size=6))
def test_a_second_implementation_reads_the_same(claims):
    made = jose.write(TYP, claims, KEY)
    assert json.loads(jws.deserialize_compact(made, ECKey.import_key(KEY.public_jwk), ["ES256"]).payload) == claims
    back = jose.read(made, TYP)
    back.signed_by(KEY.public)
    assert dict(back.claims) == claims


@pytest.mark.parametrize(
    "jwk",
    [
        {**KEY.public_jwk, "d": "AA"},
        {**KEY.public_jwk, "kid": "x"},
        {**KEY.public_jwk, "crv": "P-384"},
        {**KEY.public_jwk, "kty": "oct", "k": "AA"},
        {**KEY.public_jwk, "x": KEY.public_jwk["y"]},
        {**KEY.public_jwk, "x": "AA"},
        {**KEY.public_jwk, "x": 5},
        {"kty": "EC"},
    ],
    ids=["private", "named", "another curve", "shared secret", "not on the curve", "short", "number", "half"],
)
def test_only_a_public_key_on_the_curve_is_a_key(jwk):
    with pytest.raises(jose.TokenUnreadable):
        jose.public_key(jwk)


@pytest.mark.data
def test_the_published_signatures_come_out_as_published(published):
    for case in json.loads((published / "vectors/jose/jws_basic.json").read_text()):
        if case.get("jwk", {}).get("crv") != "P-256":
            continue
        text, _, tail = case["jws"].rpartition(".")
        key = jose.public_key(case["jwk"])
        if case["verdict"] == "accept":
            key.verify(text.encode(), jose.from_text(tail))
        else:
            with pytest.raises(ParomaError):
                key.verify(text.encode(), jose.from_text(tail))
