"""What a provider says is believed only where it is this provider's, for us, for this login, and now."""

import asyncio
import hmac
import json
import time
from contextlib import asynccontextmanager

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from paroma.kernel.clock import SystemClock
from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.randomness import OsRandomness
from paroma.kernel.wire.network import OriginNotAllowed, ReplyRefused, close
from paroma.trust.identity import jose, oidc
from paroma.trust.identity.oidc import Begun, LoginInvalid, Provider, ProviderSettings, ProviderUnfit
from paroma.trust.keys.signing import HeldKey

RSA, RSA2 = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("first", "second"))
EC = ECKey.generate_key("P-256", {"kid": "ec"})
KEY = HeldKey.fresh(OsRandomness())
BEGUN = Begun(state="s" * 43, nonce="n" * 43, verifier="v" * 43)
BACK = "https://hub.test/login/callback"


class Served:
    """A provider's addresses over a real socket: a body, or a function that writes whatever it likes."""

    def __init__(self) -> None:
        self.pages: dict[str, object] = {}
        self.asked: list[str] = []
        self.origin = ""
        self.networks: list = []

    def network(self, settings):
        self.networks.append(oidc.network_for(settings))
        return self.networks[-1]

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            for network in self.networks:
                await close(network)
            server.close()

    async def _answer(self, reader, writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(x.split(":")[1]) for x in head.lower().split("\r\n") if x.startswith("content-length")), 0
            )
            await reader.readexactly(length)
            path = head.split(" ")[1]
            self.asked.append(path)
            page = self.pages[path]
            if callable(page):
                await page(writer)
            else:
                body = page if isinstance(page, bytes) else json.dumps(page).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def document(self, **changed) -> dict:
        said = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/auth",
            "token_endpoint": f"{self.origin}/token",
            "jwks_uri": f"{self.origin}/keys",
            "response_types_supported": ["code", "id_token"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "PS256"],
            "code_challenge_methods_supported": ["S256"],
        } | changed
        return {name: value for name, value in said.items() if value is not None}


async def endless(writer) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"issuer":"\r\n')
    while True:
        writer.write(b"4000\r\n" + b"a" * 0x4000 + b"\r\n")
        await writer.drain()


async def dripping(writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


def elsewhere(where: str):
    async def sent(writer) -> None:
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    return sent


def provider_at(served: Served, **changed) -> Provider:
    settings = ProviderSettings(**{"issuer": served.origin, "client": "hub", "algorithm": "RS256"} | changed)
    return Provider(
        settings, served.network(settings), KEY, clock=SystemClock(), randomness=OsRandomness(), patience=2.0
    )


def play(scene) -> None:
    async def all_of_it() -> None:
        async with Served().running() as served:
            await scene(served)

    asyncio.run(all_of_it())


INWARD = ("http://169.254.169.254/latest", "http://127.0.0.1:1/keys", "https://localhost/keys", "http://[::1]:80/k", "file:///etc/passwd",
          "https://evil.example/keys", "//evil.example/keys", "http://127.0.0.1@evil.example/", "", "gopher://127.0.0.1/")  # fmt: skip


@pytest.mark.promise(3)
def test_a_discovery_document_leads_to_the_providers_own_addresses_only():
    async def scene(served):
        for member in (
            "authorization_endpoint", "token_endpoint", "jwks_uri", "pushed_authorization_request_endpoint",
        ):  # fmt: skip
            for way in INWARD:
                if not way and member.startswith("pushed"):
                    continue  # the empty text is as good as none
                served.pages[oidc.WELL_KNOWN] = served.document(**{member: way})
                with pytest.raises(ProviderUnfit) as refused:
                    await provider_at(served).authorization(BEGUN, BACK)
                assert "not among its addresses" in refused.value.message
                assert "login.origins" in refused.value.do
        assert set(served.asked) == {oidc.WELL_KNOWN}  # nothing was called that it named

    play(scene)


UNFIT = {
    "another issuer": lambda s: s.document(issuer="https://evil.example"),
    "its own name with a slash more": lambda s: s.document(issuer=s.origin + "/"),
    "no keys": lambda s: s.document(jwks_uri=None),
    "no PKCE": lambda s: s.document(code_challenge_methods_supported=["plain"]),
    "no word of PKCE": lambda s: s.document(code_challenge_methods_supported=None),
    "no code": lambda s: s.document(response_types_supported=["id_token"]),
    "another algorithm": lambda s: s.document(id_token_signing_alg_values_supported=["HS256", "none"]),
    "a number for an address": lambda s: s.document(token_endpoint=5),
    "a page": lambda _s: b"<!doctype html><html></html>",
    "nothing": lambda _s: b"",
    "a list": lambda _s: b"[]",
    "an issuer twice": lambda s: b'{"issuer":"https://evil.example",' + json.dumps(s.document()).encode()[1:],
    "very deep": lambda s: b'{"zzz":' + b"[" * 500 + b"]" * 500 + b"," + json.dumps(s.document()).encode()[1:],
    "many members": lambda s: s.document(**{f"x{i}": i for i in range(10_000)}),
    "a huge number": lambda s: b'{"zzz":' + b"9" * 5_000 + b"," + json.dumps(s.document()).encode()[1:],
    "not a character": lambda _s: b'{"issuer":"\xff"}',
    "too long": lambda s: s.document(zzz="a" * (oidc.MOST_REPLY + 1)),
    "without end": lambda _s: endless,
    "drop by drop": lambda _s: dripping,
    "elsewhere": lambda _s: elsewhere("http://169.254.169.254/latest/meta-data"),
}


@pytest.mark.promise(3)
@pytest.mark.parametrize("made", UNFIT.values(), ids=UNFIT)
def test_a_discovery_document_that_does_not_fit_is_refused_with_a_sentence_before_anything_is_asked(made):
    async def scene(served):
        served.pages[oidc.WELL_KNOWN] = made(served)
        began = time.process_time()
        with pytest.raises(ParomaError) as refused:
            await provider_at(served).authorization(BEGUN, BACK)
        assert time.process_time() - began < 2.0
        assert len(refused.value.message) > 20
        assert len(refused.value.do) > 10
        assert served.asked == [oidc.WELL_KNOWN]

    play(scene)


def test_the_network_of_a_login_reaches_no_other_address():
    async def scene(served):
        provider = provider_at(served)
        with pytest.raises(OriginNotAllowed):
            await provider._get("http://127.0.0.1:9/anything")  # even if a check above were wrong
        served.pages["/moved"] = elsewhere(served.origin + "/other")
        with pytest.raises(ReplyRefused):
            await provider._get(served.origin + "/moved")
        assert served.asked == ["/moved"]

    play(scene)


def claims(served, **changed) -> dict:
    now = int(time.time())
    said = {
        "iss": served.origin, "aud": "hub", "sub": "lena", "iat": now, "exp": now + 300, "nonce": BEGUN.nonce, "name": "Lena",
        "groups": ["a", "b"],
    } | changed  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


def signed(said, key=RSA, alg="RS256", **header) -> str:
    return jwt.encode({"alg": alg, "kid": key.kid, **header}, said, key, algorithms=[alg])


async def redeemed(served, token, **settings):
    served.pages[oidc.WELL_KNOWN] = served.document()
    served.pages.setdefault("/keys", {"keys": [RSA.as_dict(private=False), EC.as_dict(private=False)]})
    served.pages["/token"] = {"id_token": token, "access_token": "x", "token_type": "Bearer"}
    return await provider_at(served, **settings).redeem("code", BEGUN, BACK)


@pytest.mark.parametrize(
    ("alg", "key"), [("RS256", RSA), ("PS256", RSA), ("ES256", EC)], ids=["RS256", "PS256", "ES256"]
)
def test_a_token_of_a_second_implementation_is_read_in_each_algorithm(alg, key):
    async def scene(served):
        found = await redeemed(served, signed(claims(served), key, alg), algorithm=alg)
        assert (found.name, found.claims["sub"], found.login) == ("Lena", "lena", None)
        with_session = await redeemed(served, signed(claims(served, sid="1"), key, alg), algorithm=alg)
        assert with_session.account == found.account
        assert with_session.login not in {None, found.account}

    play(scene)


NOW = int(time.time())
WRONG = {
    "another issuer": {"iss": "https://evil.example"},
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "audience of a number": {"aud": 5},
    "several audiences, nobody authorised": {"aud": ["hub", "other"]},
    "several audiences, another authorised": {"aud": ["hub", "other"], "azp": "other"},
    "another authorised": {"azp": "other"},
    "another login": {"nonce": "m" * 43},
    "no login": {"nonce": None},
    "nonce of a number": {"nonce": 5},
    "over": {"iat": NOW - 400, "exp": NOW - 90},
    "old, though it ends late": {"iat": NOW - 4_000, "exp": NOW + 10**6},
    "from the future": {"iat": NOW + 4_000, "exp": NOW + 5_000},
    "no end": {"exp": None},
    "no beginning": {"iat": None},
    "nobody": {"sub": None},
    "an empty name": {"sub": ""},
    "a very long name": {"sub": "a" * 256},
}


@pytest.mark.promise(3)
@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_a_token_for_anybody_anything_or_any_time_else_is_refused(changed):
    async def scene(served):
        with pytest.raises(LoginInvalid):
            await redeemed(served, signed(claims(served, **changed)))

    play(scene)


@pytest.mark.promise(3)
def test_nothing_in_a_token_chooses_its_key_or_its_algorithm():
    async def scene(served):
        said = claims(served)
        good = signed(said)
        head, body, tail = good.split(".")
        mac = f"{_b64({'alg': 'HS256', 'kid': 'first'})}.{body}"
        secret = hmac.digest(RSA.as_pem(private=False), mac.encode(), "sha256")
        forged = {
            "another key of the same name": jwt.encode({"alg": "RS256", "kid": "first"}, said, RSA2),
            "an unknown key": signed(said, RSA2),
            "the public key as a secret": f"{mac}.{jose.to_text(secret)}",
            "an algorithm that was not agreed": signed(said, EC, "ES256"),
            "a padding that was not agreed": signed(said, RSA, "PS256"),
            "none": f"{_b64({'alg': 'none'})}.{body}.",
            "none with the old signature": f"{_b64({'alg': 'none'})}.{body}.{tail}",
            "no signature": f"{head}.{body}.",
            "other claims": f"{head}.{_b64(said | {'sub': 'operator'})}.{tail}",
            "a logout token": signed(said, typ="logout+jwt"),
            "not a token": "x",
            "too long": signed(claims(served, groups=["g" * 100] * 400)),
        }
        for name, extra in {
            "jku": "https://evil.example/keys", "x5u": "https://evil.example/c", "jwk": RSA2.as_dict(private=False),
        }.items():  # fmt: skip
            forged[name] = f"{_b64({'alg': 'RS256', 'kid': 'first', name: extra})}.{body}.{tail}"
        believed = []
        for name, token in forged.items():
            try:
                await redeemed(served, token)
            except ParomaError:
                continue
            believed.append(name)
        assert believed == []
        assert (await redeemed(served, good)).claims["sub"] == "lena"

    play(scene)


def _b64(value) -> str:
    return jose.to_text(json.dumps(value).encode())


@pytest.mark.parametrize(
    "keys",
    [
        {"keys": [{"kty": "RSA", "kid": "first", "n": "AQAB", "e": "AQAB"}]},
        {"keys": [RSA.as_dict(private=False) | {"e": _b64({"a": "a" * 200})}]},
        {"keys": [RSA.as_dict(private=False) | {"use": "enc"}]},
        {"keys": [RSA.as_dict(private=False) | {"alg": "PS256"}]},
        {"keys": [RSA.as_dict(private=False), RSA.as_dict(private=False)]},
        {"keys": [{"kty": "oct", "kid": "first", "k": "AAAA"}]},
        {"keys": []},
        {"keys": "none"},
        {"keys": ["none"]},
        {},
    ],
    ids=[
        "tiny",
        "dear exponent",
        "for encryption",
        "of another algorithm",
        "twice",
        "shared",
        "none",
        "text",
        "texts",
        "empty",
    ],
)
def test_keys_that_cannot_be_what_was_agreed_are_none(keys):
    async def scene(served):
        served.pages["/keys"] = keys
        with pytest.raises((LoginInvalid, ProviderUnfit)):
            await redeemed(served, signed(claims(served)))

    play(scene)


def test_the_provider_may_change_its_keys_and_is_not_asked_at_every_wrong_name():
    class Clock(SystemClock):
        ahead = 0.0

        def monotonic(self):
            return super().monotonic() + self.ahead

    async def scene(served):
        clock = Clock()
        served.pages[oidc.WELL_KNOWN] = served.document()
        served.pages["/keys"] = {"keys": [RSA.as_dict(private=False)]}
        settings = ProviderSettings(issuer=served.origin, client="hub")
        provider = Provider(settings, served.network(settings), KEY, clock=clock, randomness=OsRandomness())
        served.pages["/token"] = {"id_token": signed(claims(served))}
        await provider.redeem("code", BEGUN, BACK)
        served.pages["/keys"] = {"keys": [RSA2.as_dict(private=False)]}
        served.pages["/token"] = {"id_token": signed(claims(served), RSA2)}
        for _ in range(3):
            with pytest.raises(LoginInvalid):
                await provider.redeem("code", BEGUN, BACK)
        assert served.asked.count("/keys") == 1
        clock.ahead = oidc.AGAIN_SECONDS + 1
        assert (await provider.redeem("code", BEGUN, BACK)).name == "Lena"
        assert served.asked.count("/keys") == 2

    play(scene)


LOGOUT = {
    "an ID token": {},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "an event with something in it": {"events": {oidc.LOGOUT_EVENT: {"a": 1}}},
    "a nonce": {"events": {oidc.LOGOUT_EVENT: {}}, "nonce": "n" * 43},
    "nobody": {"events": {oidc.LOGOUT_EVENT: {}}, "sub": None},
    "old": {"events": {oidc.LOGOUT_EVENT: {}}, "iat": NOW - 4_000},
    "for another": {"events": {oidc.LOGOUT_EVENT: {}}, "aud": "other"},
}


@pytest.mark.promise(3)
@pytest.mark.parametrize("changed", LOGOUT.values(), ids=LOGOUT)
def test_only_a_logout_token_logs_out(changed):
    async def scene(served):
        served.pages[oidc.WELL_KNOWN] = served.document()
        served.pages["/keys"] = {"keys": [RSA.as_dict(private=False)]}
        provider = provider_at(served)
        good = claims(served, nonce=None, events={oidc.LOGOUT_EVENT: {}}, sid="7")
        assert (await provider.logged_out(signed(good, typ="logout+jwt"))).login
        said = ({"nonce": None} | changed) if changed else {}  # an ID token keeps the nonce of its login
        with pytest.raises(LoginInvalid):
            await provider.logged_out(signed(claims(served, **said)))

    play(scene)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"issuer": "http://login.example", "client": "hub"}, "no address on this machine"),
        ({"issuer": "https://login.example?x=1", "client": "hub"}, "no issuer"),
        ({"issuer": "https://login.example/", "client": ""}, "login.client"),
        (
            {"issuer": "https://login.example", "client": "hub", "origins": ("http://127.0.0.1:80",)},
            "no address to talk to",
        ),
        ({"issuer": "https://login.example", "client": "hub", "claim": "groups"}, "is missing"),
        ({"issuer": "https://login.example", "client": "hub", "claim": "groups", "roles": ("x=king",)}, "x=king"),
        ({"issuer": "https://login.example", "client": "hub", "claim": "groups", "roles": ("x=site",)}, "x=site"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(given, says):
    with pytest.raises(BadInput) as refused:
        ProviderSettings(**given)
    assert says in refused.value.message


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), ("no certificate", "PEM")])
def test_an_authority_that_is_none_is_refused_at_the_start(tmp_path, content, says):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadInput) as refused:
        oidc.network_for(ProviderSettings(issuer="https://login.example", client="hub", authority=file))
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["b", "a"], "scientist"), (["b"], "auditor"), ("b", "auditor"), (["c"], None), ([], None), (None, None), ({"a": 1}, None),
        ([["a"]], None), (5, None), ("a=scientist", None),
    ],
)  # fmt: skip
def test_the_first_role_of_the_settings_that_fits_is_given_and_nothing_else_gives_one(groups, role):
    settings = ProviderSettings(
        issuer="https://login.example", client="hub", claim="groups", roles=("a=scientist", "b=auditor")
    )
    assert settings.role({"groups": groups}) == role
