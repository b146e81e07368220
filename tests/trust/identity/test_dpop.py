import contextlib
import json

import pytest
from hypothesis import given, strategies as st

from paroma.kernel.errors import ParomaError, Unavailable
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.identity import dpop, jose
from paroma.trust.identity.nonces import NonceNeeded, Nonces, Replayed
from paroma.trust.keys.signing import HeldKey

KEY = HeldKey.fresh(SeededRandomness(1, "dpop"))
OTHER = HeldKey.fresh(SeededRandomness(2, "dpop"))
URL = "https://hub.example:8443/line/exchange"
NOW = 1_800_000_000.0


def make(nonce, *, key=KEY, method="POST", url=URL, token="t", now=NOW, seed=0):
    return dpop.make_proof(
        key, method, url, nonce=nonce, token=token, now=now, randomness=SeededRandomness(seed, "proof")
    )


def verify(proof, boot, *, method="POST", url=URL, token="t", thumbprint=KEY.thumbprint, now=NOW):
    return dpop.verify_proof(proof, method=method, url=url, token=token, thumbprint=thumbprint, now=now, nonces=boot)


@pytest.fixture
def boot(clock):
    return Nonces(clock, SeededRandomness(1, "boot"))


def test_a_proof_for_this_request_holds(boot):
    assert verify(make(boot.current()), boot).thumbprint == KEY.thumbprint


@pytest.mark.promise(3)
def test_a_proof_holds_once(boot):
    proof = make(boot.current())
    verify(proof, boot)
    with pytest.raises(Replayed):
        verify(proof, boot)


@pytest.mark.promise(3)
def test_every_proof_from_before_a_restart_is_refused(boot, clock):
    shown, unseen = make(boot.current(), seed=1), make(boot.current(), seed=2)
    verify(shown, boot)
    after = Nonces(clock, SeededRandomness(2, "boot"))
    for proof in (shown, unseen):
        with pytest.raises(NonceNeeded):
            verify(proof, after)


@pytest.mark.promise(3)
@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 61, 119, 120, 179, 240, 600, 1e6])
def test_a_replay_is_refused_whenever_it_comes(boot, clock, seconds):
    proof = make(boot.current())
    verify(proof, boot)
    clock.forward(seconds)
    with pytest.raises((Replayed, NonceNeeded)):
        verify(proof, boot)  # even with a wall clock that was set back to the time of the proof


@pytest.mark.parametrize(("seconds", "good"), [(59, True), (60, True), (120, False)])
def test_a_nonce_lives_for_its_window_and_the_next(boot, clock, seconds, good):
    clock.forward(-clock.monotonic() % 60)
    nonce = boot.current()
    clock.forward(seconds)
    if good:
        verify(make(nonce), boot)
    else:
        with pytest.raises(NonceNeeded):
            verify(make(nonce), boot)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "given",
    [
        {"method": "GET"},
        {"url": "https://hub.example:8443/line/token"},
        {"url": "https://hub.example/line/exchange"},
        {"url": "http://hub.example:8443/line/exchange"},
        {"url": "https://evil.example:8443/line/exchange"},
        {"token": "another"},
        {"token": None},
        {"key": OTHER},
        {"now": NOW - 61},
        {"now": NOW + 61},
        {"url": "https://u@hub.example:8443/line/exchange"},
    ],
    ids=str,
)
def test_a_proof_for_anything_else_is_refused(boot, given):
    with pytest.raises(dpop.ProofInvalid):
        verify(make(boot.current(), **given), boot)


@pytest.mark.promise(3)
def test_a_refused_proof_takes_up_no_memory(boot):
    proof = make(boot.current(), key=OTHER)
    for _ in range(3):
        with pytest.raises(dpop.ProofInvalid):
            verify(proof, boot)
    assert not boot._seen


@pytest.mark.promise(3)
@pytest.mark.parametrize("nonce", [None, "x", "A" * 24, ""])
def test_a_proof_without_a_nonce_of_this_boot_is_refused(boot, nonce):
    with pytest.raises(ParomaError):
        verify(make(nonce), boot)


@pytest.mark.parametrize("claim", ["jti", "htm", "htu", "iat", "ath"])
@pytest.mark.parametrize("value", [None, 5.5, True, "", [], {"a": 1}], ids=repr)
def test_a_proof_with_a_claim_of_another_kind_is_refused(boot, claim, value):
    claims = {
        "jti": "j",
        "htm": "POST",
        "htu": URL,
        "iat": int(NOW),
        "ath": dpop.token_hash("t"),
        "nonce": boot.current(),
    }
    with pytest.raises(ParomaError):
        verify(jose.write(dpop.TYP, {**claims, claim: value}, KEY, jwk=True), boot)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/p", "HTTPS://A.Example:443/p?x=1#f", True),
        ("https://a.example", "https://a.example/", True),
        ("https://a.example/%7Ea/%2f", "https://a.example/~a/%2F", True),
        ("https://a.example/a/../b/./c", "https://a.example/b/c", True),
        ("https://[::1]:8443/x", "https://[::1]:8443/x", True),
        ("https://a.example/a%2Fb", "https://a.example/a/b", False),
        ("https://a.example/p", "https://a.example/P", False),
        ("https://a.example/p", "https://a.example/p/", False),
        ("https://a.example:444/p", "https://a.example/p", False),
    ],
)
def test_addresses_are_compared_in_their_normal_form(one, other, same):
    assert (dpop.target(one) == dpop.target(other)) is same


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_refusal(text):
    with contextlib.suppress(dpop.ProofInvalid):
        assert dpop.target(dpop.target(text)) == dpop.target(text)


def test_a_full_memory_refuses_and_does_not_forget(clock):
    boot = Nonces(clock, SeededRandomness(1, "boot"), most_seen=2)
    boot.once("a")
    boot.once("b")
    with pytest.raises(Unavailable):
        boot.once("c")
    with pytest.raises(Replayed):
        boot.once("a")


@pytest.mark.data
@pytest.mark.promise(3)
def test_the_published_proofs_come_out_as_published(published, clock):
    cases = json.loads((published / "vectors/jose/rfc9449_dpop.json").read_text())["cases"]
    assert len(cases) >= 14
    for case in cases:
        seen = Nonces(clock, SeededRandomness(3, "vectors"))
        for jti in case.get("seen_jti", []):
            seen.once(jti)
        request, token = case["request"], case.get("access_token")

        def judge(case=case, seen=seen, request=request, token=token):
            found = dpop.read_proof(
                case["proof"], method=request["method"], url=request["uri"], token=token, now=case["now"]
            )
            if "require_nonce" in case:
                seen.spend(found.nonce, found.jti)
            seen.once(found.jti)

        if case["verdict"] == "accept":
            judge()
        else:
            with pytest.raises(ParomaError):
                judge()
