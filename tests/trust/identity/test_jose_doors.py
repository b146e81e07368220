"""Every way to forge a JOSE text, at every door of a running hub that reads one: assertion, proof, access token.

The hub is the real program. Each forged text stands where a good one just was let in, and all else about the request is right.
"""

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paroma.kernel.randomness import OsRandomness
from paroma.trust.identity import clients, dpop, jose, tokens
from paroma.trust.keys.signing import HeldKey

HUB = "https://hub.test:443"
RANDOM = OsRandomness()


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


def forged(good: str, key: HeldKey, *, own: HeldKey) -> dict[str, str]:
    """`good`, a compact JWS by `key`, forged in every way we know of; `own` is a key that the forger holds.

    Where the forger could have had `key`'s holder sign (a confused client, say), the signature is right: the form must be refused.
    """
    head, body, tail = good.split(".")
    header, claims = json.loads(jose.from_text(head)), json.loads(jose.from_text(body))

    def by(signer: HeldKey, changed: object = header, said: object = claims) -> str:
        texts = [one if isinstance(one, str) else json.dumps(one, separators=(",", ":")) for one in (changed, said)]
        text = ".".join(map(b64, texts))
        return f"{text}.{b64(signer.sign(text.encode()))}"

    def mac(alg: str, secret: bytes) -> str:
        text = f"{b64(json.dumps(header | {'alg': alg}))}.{body}"
        return f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha' + alg[2:]))}"

    def unsigned(alg: str, signature: str = "") -> str:
        return f"{b64(json.dumps(header | {'alg': alg}))}.{body}.{signature}"

    spelled, said = json.dumps(header)[1:], json.dumps(claims)[1:]
    point = jose.public_key(key.public_jwk)
    pem = _pem(point.jwk)
    signature = jose.from_text(tail)
    made = {
        "no signature": f"{head}.{body}.",
        "no third part": f"{head}.{body}",
        "none": unsigned("none"),
        "none, in other letters": unsigned("NoNe"),
        "none, with the old signature": unsigned("none", tail),
        "the public key as a secret, as PEM": mac("HS256", pem),
        "the public key as a secret, as JWK": mac("HS256", json.dumps(dict(key.public_jwk)).encode()),
        "the public key as a secret, long hash": mac("HS512", pem),
        "an empty secret": mac("HS256", b""),
        "another key": by(own),
        "signature of zeros": f"{head}.{body}.{b64(bytes(64))}",
        "signature in DER": f"{head}.{body}.{b64(encode_dss_signature(*(int.from_bytes(signature[i : i + 32], 'big') for i in (0, 32))))}",
        "signature of another text": f"{head}.{b64(json.dumps(claims | {'sub': 'person-0', 'htm': 'PUT'}))}.{tail}",
        "jku": by(own, header | {"jku": "https://evil.example/keys"}),
        "jku, rightly signed": by(key, header | {"jku": "https://evil.example/keys"}),
        "jku to the inside": by(key, header | {"jku": "http://169.254.169.254/latest"}),
        "x5u": by(key, header | {"x5u": "https://evil.example/c"}),
        "x5c": by(key, header | {"x5c": ["AA=="]}),
        "kid that is a path": by(key, header | {"kid": "../../../../dev/null"}),
        "kid that is a query": by(key, header | {"kid": "x' UNION SELECT '1"}),
        "kid with a line feed": by(key, header | {"kid": "a\nb"}),
        "zip": by(key, header | {"zip": "DEF"}),
        "crit": by(key, header | {"crit": ["exp"], "exp": 1}),
        "crit, empty": by(key, header | {"crit": []}),
        "b64": by(key, header | {"b64": False, "crit": ["b64"]}),
        "cty": by(key, header | {"cty": "JWT"}),
        "password encryption, a thousand million rounds": by(
            key, {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 1_000_000_000, "p2s": "AA", "typ": header["typ"]}
        ),
        "rounds beside a right algorithm": by(key, header | {"p2c": 1_000_000_000}),
        "encrypted form": f"{b64(json.dumps({'alg': 'dir', 'enc': 'A256GCM'}))}..AAAA.AAAA.AAAA",
        "another type": by(key, header | {"typ": "JWT"}),
        "no type": by(key, {name: value for name, value in header.items() if name != "typ"}),
        "algorithm twice": by(key, '{"alg":"none",' + spelled),
        "key of the header twice": by(key, '{"jwk":1,' + spelled),
        "claim twice": by(key, said='{"sub":"person-0","iss":"person-0","jti":"1","htm":"GET",' + said),
        "claims of a list": by(key, said="[1]"),
        "claims and something more": by(key, said=json.dumps(claims) + "{}"),
        "not a number": by(key, said='{"iat":NaN,' + said),
        "a number without end": by(key, said='{"zzz":1e999,' + said),
        "very deep": by(key, said='{"zzz":' + "[" * 400 + "]" * 400 + "," + said),
        "half a character": by(key, said='{"zzz":"\\ud800",' + said),
        "times as texts": by(key, said=claims | {name: str(claims[name]) for name in ("iat", "exp") if name in claims}),
        "padded": good + "==",
        "JSON form": json.dumps({"protected": head, "payload": body, "signature": tail}),
        "too long": good + "A" * 5_000,
        "nothing": "",
        "letters": "a.b.c",
    }  # fmt: skip
    for alg in ("ES384", "ES512", "ES256K", "RS256", "PS256", "EdDSA", "", None, 256, ["ES256"]):
        made[f"algorithm {alg}"] = by(key, header | {"alg": alg})
    if "jwk" in header:
        for name, jwk in {
            "private": dict(key.public_jwk) | {"d": "AA"},
            "shared": {"kty": "oct", "k": b64(b"k" * 32)},
            "of another curve": dict(key.public_jwk) | {"crv": "P-384"},
            "off the curve": dict(key.public_jwk) | {"x": key.public_jwk["y"]},
            "the forger's": dict(own.public_jwk),
        }.items():
            made[f"key in the header, {name}"] = by(own, header | {"jwk": jwk})
        made["key in the header, left out"] = by(key, {k: v for k, v in header.items() if k != "jwk"})
    else:
        made["own key in the header"] = by(own, header | {"jwk": dict(own.public_jwk)})
        made["own key in the header, rightly signed"] = by(key, header | {"jwk": dict(key.public_jwk)})
    return made


def _pem(jwk) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    x, y = (int.from_bytes(jose.from_text(jwk[name]), "big") for name in ("x", "y"))
    key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Asking:
    """A person who makes requests by hand, at the hub's own program."""

    def __init__(self, town) -> None:
        self.town, self.someone = town, town.someone("auditor@hub")
        self.key = self.someone.key
        self.browser = _fed().Browser(town)
        self.nonce = ""

    def now(self) -> float:
        return self.town.clock.now()

    def assertion(self) -> str:
        return clients.make_assertion(self.key, self.someone.person, HUB, now=self.now(), randomness=RANDOM)

    def proof(self, method: str, path: str, token: str | None = None) -> str:
        return dpop.make_proof(
            self.key, method, HUB + path, nonce=self.nonce, token=token, now=self.now(), randomness=RANDOM
        )

    async def token(self, assertion: str, proof: str | None = None):
        form = urlencode(
            {
                "grant_type": "client_credentials",
                "client_assertion_type": clients.ASSERTION_TYPE,
                "client_assertion": assertion,
            }
        )
        shown = self.proof("POST", "/line/token") if proof is None else proof
        reply = await self.browser.ask("POST", HUB + "/line/token", form.encode(), dpop=shown)
        self.nonce = reply.headers["dpop-nonce"]
        return reply

    async def members(self, token: str, proof: str | None = None):
        shown = self.proof("GET", "/api/members", token) if proof is None else proof
        return await self.browser.ask("GET", HUB + "/api/members", authorization=f"DPoP {token}", dpop=shown)


def _fed():
    import paroma_test_federation

    return paroma_test_federation


def refused(reply, status: int) -> bool:
    said = json.loads(reply.body)
    return reply.status == status and len(said["detail"]) > 10 and len(said["do"]) > 10 and "access_token" not in said


@pytest.mark.promise(3)
def test_no_forged_text_opens_any_door_of_the_hub(town):
    async def scene(town):
        me, own = Asking(town), HeldKey.fresh(RANDOM)
        await me.token(me.assertion())  # brings a nonce
        let_in: list[tuple[str, str, int, bytes]] = []

        got = await me.token(me.assertion())
        assert got.status == 200
        token = json.loads(got.body)["access_token"]
        assert (await me.members(token)).status == 200  # so everything but the forgery is right below

        assertions = forged(me.assertion(), me.key, own=own)
        for name, forgery in assertions.items():
            reply = await me.token(forgery)
            if not refused(reply, 400):
                let_in.append(("assertion", name, reply.status, reply.body))
        proofs = forged(me.proof("GET", "/api/members", token), me.key, own=own)
        for name, forgery in proofs.items():
            reply = await me.members(token, forgery)
            if not refused(reply, 401):
                let_in.append(("proof", name, reply.status, reply.body))
        for name, forgery in forged(me.proof("POST", "/line/token"), me.key, own=own).items():
            reply = await me.token(me.assertion(), forgery)
            if not refused(reply, 400):
                let_in.append(("proof for a token", name, reply.status, reply.body))
        # the hub's own key signs: what a confused issuer could be brought to sign is not a token either
        for name, forgery in forged(token, town.hub.key, own=own).items():
            reply = await me.members(forgery.replace("\n", ""))
            if not refused(reply, 401):
                let_in.append(("token", name, reply.status, reply.body))
        assert let_in == []
        assert min(len(assertions), len(proofs)) > 50
        # one kind of text is not another
        for wrong in (me.assertion(), me.proof("GET", "/api/members", token), got.body.decode()):
            assert refused(await me.members(wrong), 401)
        for wrong in (token, me.proof("POST", "/line/token")):
            assert refused(await me.token(wrong), 400)
        assert (await me.members(token)).status == 200

    town.play(scene, sites=())


@pytest.mark.promise(3)
@pytest.mark.data
def test_no_published_vector_opens_a_door_of_ours(town, published):
    folder = published / "vectors" / "jose"
    proofs = json.loads((folder / "rfc9449_dpop.json").read_text())
    texts = [case["jws"] for case in json.loads((folder / "jws_basic.json").read_text())]
    texts += [case["proof"] for case in proofs["cases"]] + [proofs["access_token"]]

    async def scene(town):
        me = Asking(town)
        await me.token(me.assertion())
        token = json.loads((await me.token(me.assertion())).body)["access_token"]
        for text in texts:
            assert refused(await me.token(text), 400)
            assert refused(await me.token(me.assertion(), text), 400)
            assert refused(await me.members(text), 401)
            assert refused(await me.members(token, text), 401)

    town.play(scene, sites=())


@pytest.mark.data
def test_the_published_thumbprints_come_out_as_published(published):
    for case in json.loads((published / "vectors" / "jose" / "jwk_thumbprints.json").read_text()):
        members = {name: case["jwk"][name] for name in sorted({"crv", "kty", "x", "y"} & case["jwk"].keys())}
        if case["jwk"].get("crv") == "P-256":
            assert jose.public_key(members).thumbprint == case["sha256"]
        else:  # by another way of computing, so that the vectors themselves are seen to be right; no such key is ours
            needed = {"RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}[case["jwk"]["kty"]]
            text = json.dumps({name: case["jwk"][name] for name in needed}, separators=(",", ":"))
            assert b64(hashlib.sha256(text.encode()).digest()) == case["sha256"]
            with pytest.raises(jose.TokenUnreadable):
                jose.public_key(case["jwk"])


def test_the_verifier_of_tokens_remembers_no_refusal_as_a_yes(clock):
    key, own = HeldKey.fresh(RANDOM), HeldKey.fresh(RANDOM)
    verifier = tokens.Verifier(key.public, issuer=HUB, audience=HUB, epoch=0, clock=clock)
    good = tokens.issue(
        key, issuer=HUB, audience=HUB, subject="person-1", role="auditor", site=None, thumbprint=own.public.thumbprint,
        epoch=0, now=clock.now(), randomness=RANDOM,
    )  # fmt: skip
    assert verifier.verify(good).subject == "person-1"
    for forgery in forged(good, key, own=own).values():
        for _ in range(2):
            with pytest.raises((tokens.TokenInvalid, jose.TokenUnreadable)):
                verifier.verify(forgery)
    assert verifier.verify(good).subject == "person-1"
