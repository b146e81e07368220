import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.identity import clients, dpop, jose, tokens
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import NonceNeeded, Nonces, Replayed
from paroma.trust.keys.signing import HeldKey

HUB = "https://hub.example:8443"
HUB_KEY = HeldKey.fresh(SeededRandomness(1, "hub"))
SITE_KEY = HeldKey.fresh(SeededRandomness(2, "site"))
NOW = 1_800_000_000.0


def issue(**changed):
    given = {
        "issuer": HUB,
        "audience": HUB,
        "subject": "site-1",
        "role": "site",
        "site": "site-1",
        "thumbprint": SITE_KEY.thumbprint,
        "epoch": 3,
        "now": NOW,
        "randomness": SeededRandomness(1, "token"),
    }
    key = changed.pop("key", HUB_KEY)
    return tokens.issue(key, **{**given, **changed})


def verify(token, *, epoch=3, now=NOW, audience=HUB, issuer=HUB):
    return tokens.verify(token, HUB_KEY.public, issuer=issuer, audience=audience, epoch=epoch, now=now)


def test_a_token_says_who_for_whom_and_with_which_key():
    said = verify(issue())
    assert (said.subject, said.role, said.site, said.thumbprint, said.epoch) == (
        "site-1",
        "site",
        "site-1",
        SITE_KEY.thumbprint,
        3,
    )
    assert said.ends == NOW + 60


def test_a_second_implementation_reads_our_tokens():
    found = jwt.decode(issue(), ECKey.import_key(HUB_KEY.public_jwk), algorithms=["ES256"])
    assert found.claims["cnf"] == {"jkt": SITE_KEY.thumbprint}
    assert found.claims["exp"] - found.claims["iat"] == 60


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("made", "read"),
    [
        ({"issuer": "https://evil.example"}, {}),
        ({"audience": "https://other.example"}, {}),
        ({"key": SITE_KEY}, {}),
        ({"epoch": 2}, {}),
        ({}, {"epoch": 4}),
        ({}, {"now": NOW + 60}),
        ({"now": NOW + 3600}, {}),
        ({"role": "god"}, {}),
    ],
    ids=str,
)
def test_a_token_of_another_party_time_or_epoch_is_refused(made, read):
    with pytest.raises(ParomaError):
        verify(issue(**made), **read)


@pytest.mark.promise(3)
def test_what_was_verified_before_a_revocation_is_not_believed_after_it(clock):
    verifier = tokens.Verifier(HUB_KEY.public, issuer=HUB, audience=HUB, epoch=3, clock=clock)
    token = issue()
    assert verifier.verify(token) == verifier.verify(token)
    verifier.revoked(4)
    with pytest.raises(tokens.TokenInvalid):
        verifier.verify(token)
    verifier.revoked(1)
    assert verifier.epoch == 4


@pytest.mark.promise(3)
def test_a_remembered_token_still_ends(clock):
    verifier = tokens.Verifier(HUB_KEY.public, issuer=HUB, audience=HUB, epoch=3, clock=clock)
    token = issue()
    verifier.verify(token)
    clock.forward(60)
    with pytest.raises(tokens.TokenInvalid):
        verifier.verify(token)


# -- asking for a token


@pytest.fixture
def asked(clock):
    boot = Nonces(clock, SeededRandomness(1, "boot"))
    issuer = Issuer(HUB_KEY, HUB, nonces=boot, clock=clock, randomness=SeededRandomness(1, "issuer"))
    site = Client(subject="site-1", role="site", site="site-1", key=SITE_KEY.public)

    def ask(*, key=SITE_KEY, prover=SITE_KEY, subject="site-1", audience=HUB, seed=0, find=None, body=None):
        assertion = clients.make_assertion(
            key, subject, audience, now=clock.now(), randomness=SeededRandomness(seed, "a")
        )
        url = HUB + "/line/token"
        proof = dpop.make_proof(
            prover,
            "POST",
            url,
            nonce=boot.current(),
            token=None,
            now=clock.now(),
            randomness=SeededRandomness(seed, f"p{clock.now()}"),
        )
        body = clients.token_request(assertion) if body is None else body
        found = find or (lambda name: site if name == "site-1" else None)
        return clients.read_reply(issuer.grant(body, proof, url=url, find=found, epoch=3))

    return ask


def test_who_proves_an_enrolled_key_gets_a_token(asked):
    assert verify(asked().access_token).subject == "site-1"


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "wrong",
    [
        {"key": HUB_KEY},
        {"prover": HUB_KEY},
        {"subject": "site-2"},
        {"audience": "https://other.example"},
        {"find": lambda _: None},
        {"body": b"grant_type=password"},
        {"body": b"\xff"},
        {"body": b"a=1&" * 4000},
        {"body": clients.token_request("x") + b"&grant_type=client_credentials"},
        {"body": clients.token_request("a.b.c")},
    ],
    ids=lambda w: str(w)[:40],
)
def test_nobody_else_gets_one(asked, wrong):
    with pytest.raises(ParomaError):
        asked(**wrong)


@pytest.mark.promise(3)
def test_an_assertion_is_good_once(asked, clock):
    asked()
    clock.forward(1)
    body = clients.token_request(
        clients.make_assertion(SITE_KEY, "site-1", HUB, now=clock.now() - 1, randomness=SeededRandomness(0, "a"))
    )
    with pytest.raises(Replayed):
        asked(body=body, seed=9)


@pytest.mark.promise(3)
def test_unknown_revoked_and_mis_signed_get_the_same_answer(asked):
    said = set()
    for wrong in ({"subject": "site-2"}, {"find": lambda _: None}, {"key": HUB_KEY}):
        with pytest.raises(clients.ClientUnknown) as caught:
            asked(**wrong, seed=len(said))
        said.add(str(caught.value))
    assert len(said) == 1


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "changed", [{"exp": NOW + 3600}, {"iat": NOW - 600, "exp": NOW - 540}, {"iss": "x"}, {"jti": ""}]
)
def test_an_assertion_of_another_form_is_refused(changed):
    claims = {"iss": "site-1", "sub": "site-1", "aud": HUB, "iat": int(NOW), "exp": int(NOW) + 60, "jti": "j"}
    made = jose.write(clients.TYP, {**claims, **json.loads(json.dumps(changed))}, SITE_KEY)
    site = Client(subject="site-1", role="site", site="site-1", key=SITE_KEY.public)
    with pytest.raises(ParomaError):
        clients.verify_assertion(made, audience=HUB, find=lambda _: site, now=NOW)


def test_the_token_endpoint_names_its_nonce(clock):
    boot = Nonces(clock, SeededRandomness(1, "boot"))
    with pytest.raises(NonceNeeded):
        boot.spend(None, "x")
