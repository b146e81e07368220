"""Who a provider vouches for is one person here, in the role that the settings or an operator's link give, until it is taken away.

The provider is a few lines in this process: `test_login.py` has the one that we did not write.
"""

import json
import time
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from paroma.hub.app import make_app as hub_app
from paroma.kernel.randomness import OsRandomness
from paroma.site.app import make_app as site_app
from paroma.trust.identity.oidc import LOGOUT_EVENT, Provider, ProviderSettings
from paroma.trust.identity.tables import PEOPLE
from paroma.trust.keys.signing import HeldKey
from paroma.trust.permit import permit as permits

ISSUER = "https://login.test"
HUB = "https://hub.test:443"
VA = "https://va.test:443"
KEY = RSAKey.generate_key(2048, {"kid": "first"})


class Login:
    """The provider. `groups`: of each account."""

    def __init__(self) -> None:
        self.groups: dict[str, list[str]] = {}
        self.codes: dict[str, tuple[str, str]] = {}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.document),
                Route("/keys", lambda _r: JSONResponse({"keys": [KEY.as_dict(private=False)]})),
                Route("/token", self.token, methods=["POST"]),
            ]
        )

    async def document(self, _request) -> JSONResponse:
        ways = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse(
            {name: f"{ISSUER}/{way}" for name, way in ways.items()}
            | {
                "issuer": ISSUER,
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def token(self, request) -> JSONResponse:
        form = parse_qs((await request.body()).decode())
        account, nonce = self.codes.pop(form["code"][0])
        return JSONResponse({"id_token": self.signed(account, nonce=nonce)})

    def signed(self, account: str, typ: str = "JWT", **more: object) -> str:
        now = int(time.time())
        said = {"iss": ISSUER, "aud": "us", "sub": account, "iat": now, "exp": now + 300, "name": account.title()}
        return jwt.encode(
            {"alg": "RS256", "kid": "first", "typ": typ}, said | {"groups": self.groups.get(account, [])} | more, KEY
        )


def with_login(town, login, program, origin, app, *roles) -> None:
    """`program` (a hub or a site of the town) gets this provider."""
    settings = ProviderSettings(issuer=ISSUER, client="us", claim="groups" if roles else "", roles=roles)
    program.provider = Provider(
        settings, town.wires, HeldKey.fresh(OsRandomness()), clock=town.clock, randomness=OsRandomness()
    )
    town.wires.apps["https://login.test:443"] = login.app()
    town.wires.apps[origin] = app(program)


async def signed_in(town, fed, login, origin, account, start="/login"):
    """The browser and the program's reply."""
    browser = fed.Browser(town)
    begun = await browser.ask("GET", origin + start)
    assert begun.status == 303, begun.body
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    code = f"code-{len(login.codes)}-{account}"
    login.codes[code] = account, asked["nonce"][0]
    return browser, await browser.ask("GET", f"{origin}/login/callback?code={code}&state={asked['state'][0]}")


@pytest.mark.promise(3)
def test_one_account_is_one_person_whatever_its_role_and_an_old_roles_session_ends(town, fed):
    async def scene(town):
        login = Login()
        with_login(town, login, town.hub, HUB, hub_app, "sci=scientist", "com=committee")
        login.groups["lena"] = ["sci"]
        browser, reply = await signed_in(town, fed, login, HUB, "lena")
        assert reply.status == 200, reply.body
        assert (await browser.ask("GET", HUB + "/api/runs")).status == 200
        first = await _rows(town.hub)
        login.groups["lena"] = ["com"]
        second, reply = await signed_in(town, fed, login, HUB, "lena")
        after = await _rows(town.hub)
        assert (len(after), {row.person for row in after}) == (len(first), {row.person for row in first})
        assert [row.role for row in after if row.name == "Lena"] == ["committee"]
        assert (await browser.ask("GET", HUB + "/api/runs")).status == 403  # opened as a scientist
        assert (await second.ask("GET", HUB + "/api/runs")).status == 200
        roles = [e["role"] for e in town.hub_log() if e["kind"] == "person-enrolled" and e["key"] == ""]
        assert roles == ["scientist", "committee"]
        login.groups["lena"] = []  # left the group
        _, reply = await signed_in(town, fed, login, HUB, "lena")
        assert (reply.status, b"nobody has enrolled" in reply.body) == (403, True)

    town.play(scene, sites=())


async def _rows(program):
    return await program.store.read(lambda tx: tx.execute(select(PEOPLE.c.person, PEOPLE.c.name, PEOPLE.c.role)).all())


@pytest.mark.promise(3)
def test_who_is_revoked_does_not_come_back_through_the_provider(town, fed):
    async def scene(town):
        login = Login()
        with_login(town, login, town.hub, HUB, hub_app, "aud=auditor")
        login.groups["ann"] = ["aud"]
        browser, reply = await signed_in(town, fed, login, HUB, "ann")
        assert (await browser.ask("GET", HUB + "/api/members")).status == 200
        ann = next(row.person for row in await _rows(town.hub) if row.name == "Ann")
        status, _ = await town.someone("operator@hub").ask(
            "POST", f"/api/people/{ann}/revoke", {"reason": "left the house"}
        )
        assert status == 200
        assert (await browser.ask("GET", HUB + "/api/members")).status == 403
        for account in ("ann", "nobody"):
            _, reply = await signed_in(town, fed, login, HUB, account)
            assert (reply.status, b"nobody has enrolled this account here" in reply.body) == (403, True)

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_a_hospitals_people_sign_in_at_its_own_provider_and_a_session_signs_no_permit(town, fed):
    async def scene(town):
        login, site = Login(), town.sites["va"]
        with_login(town, login, site, VA, site_app, "privacy=officer", "desk=desk")
        login.groups |= {"ruth": ["privacy"], "dora": ["desk"], "eve": ["staff"]}
        dora, reply = await signed_in(town, fed, login, VA, "dora")
        assert reply.status == 200, reply.body
        link = f"{VA}/api/patients/{town.patients('va')[0]}/link"
        assert (await dora.ask("POST", link)).status in {200, 201}
        assert (await dora.ask("POST", link, origin="https://evil.example")).status == 403
        assert (await dora.ask("POST", f"{VA}/api/pause")).status == 403
        _, reply = await signed_in(town, fed, login, VA, "eve")
        assert (reply.status, b"nobody has enrolled" in reply.body) == (403, True)

        ruth, reply = await signed_in(town, fed, login, VA, "ruth")
        assert (await ruth.ask("GET", f"{VA}/api/requests")).status == 200
        _, standing = await town.someone("scientist@hub").ask("POST", "/api/applications", town.wish())
        permit = msgspec.convert(standing["permit"], permits.Permit)
        await town.asked("va", permit.id)
        person = next(row.person for row in await _rows(site) if row.name == "Ruth")
        mine = HeldKey.fresh(OsRandomness())
        signature = permits.sign(permit, site.membership.site, person, mine, town.clock.now())
        reply = await ruth.ask("POST", f"{VA}/api/requests/{permit.id}/sign", msgspec.json.encode(signature))
        assert (reply.status, json.loads(reply.body)["detail"]) == (403, "the signature is not yours")

        # the provider says that Dora signed out: her session ends, Ruth's stays
        token = login.signed("dora", "logout+jwt", events={LOGOUT_EVENT: {}})
        out = await fed.Browser(town).ask("POST", f"{VA}/logout/back-channel", f"logout_token={token}".encode())
        assert out.status == 200
        assert (await dora.ask("POST", link)).status == 403
        assert (await ruth.ask("GET", f"{VA}/api/requests")).status == 200

    town.play(scene)


def test_where_no_provider_is_set_nothing_is_there(town, fed):
    async def scene(town):
        browser = fed.Browser(town)
        for method, path in (
            ("GET", "/login"),
            ("GET", "/login/callback"),
            ("GET", "/login/keys"),
            ("POST", "/logout/back-channel"),
        ):
            assert (await browser.ask(method, HUB + path)).status == 404

    town.play(scene, sites=())


def test_a_login_that_was_begun_too_long_ago_is_over(town, fed):
    async def scene(town):
        login = Login()
        with_login(town, login, town.hub, HUB, hub_app, "aud=auditor")
        login.groups["ann"] = ["aud"]
        browser = fed.Browser(town)
        begun = await browser.ask("GET", HUB + "/login")
        asked = parse_qs(urlsplit(begun.headers["location"]).query)
        login.codes["c"] = "ann", asked["nonce"][0]
        town.clock.ahead = 601.0
        reply = await browser.ask("GET", f"{HUB}/login/callback?code=c&state={asked['state'][0]}")
        assert (reply.status, b"more than ten minutes ago" in reply.body) == (403, True)
        assert login.codes  # nothing was asked of the provider

    town.play(scene, sites=())
