"""Signing in at an OpenID Provider, the same at hub and site. Where no provider is set, nothing is at these addresses.

The login belongs to the browser that began it: its cookie must come back with the answer. The session's own cookie is sent to
pages of this program only (SameSite=Strict), so the answer is a page that leads on, not a redirect that began elsewhere.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.ids import SiteId
from paroma.trust.identity import logins
from paroma.trust.identity.logins import LOGIN_SECONDS
from paroma.trust.identity.oidc import Identity, LoginInvalid, Provider
from paroma.trust.identity.people import Opened, Person
from paroma.web.kit.http import NotHere, as_json, body_of
from paroma.web.kit.sign_in import SignIn, inside, sentence

CALLBACK = "/login/callback"
MOST_FORM = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRoutes:
    """The routes of logins. provider: None where none is set. site: of whose people these are, None at a hub."""

    sign_in: SignIn
    provider: Provider | None
    site: SiteId | None
    signed_in: Callable[[str, str], Response]  # the page that leads on: name, where to
    enrolled: Callable[[Connection, Person], None]

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/login", self.begin, methods=["GET"]),
            Route("/login/enrol/{code}", self.begin, methods=["GET"]),
            Route(CALLBACK, self.callback, methods=["GET"]),
            Route("/login/keys", self.keys, methods=["GET"]),
            Route("/logout/back-channel", self.back_channel, methods=["POST"]),
        ]

    @property
    def cookie(self) -> str:
        """The name of the cookie of a login that began."""
        name = f"paroma-login-{hashlib.sha256(self.sign_in.origin.encode()).hexdigest()[:8]}"
        return f"__Host-{name}" if self.sign_in.origin.startswith("https:") else name

    async def begin(self, request: Request) -> Response:
        """Sends the browser to the provider; with the code of an enrolment link, to enrol the account that signs in there."""
        provider, to = self._there(), request.query_params.get("to", "")
        link = request.path_params.get("code")
        cookie, begun = await self.sign_in.store.write(
            lambda tx: logins.begin(
                tx,
                link=link,
                to=to if inside(to) else "/",
                now=self.sign_in.clock.now(),
                randomness=self.sign_in.randomness,
            )
        )
        try:
            where = await provider.authorization(begun, self.sign_in.origin + CALLBACK)
        except ParomaError as error:
            return self.sign_in.closed(f"Nobody can sign in just now: {error.message}.", sentence(error.do))
        reply = RedirectResponse(where, 303)
        # lax: the provider's page sends the browser back here, and this cookie must come with it
        self._set(reply, self.cookie, cookie, int(LOGIN_SECONDS), "lax")
        return reply

    async def callback(self, request: Request) -> Response:
        """Where the provider sends the browser back: opens a session for whom it vouches for, if they are enrolled here."""
        provider = self._there()
        try:
            opened, to = await self._answered(provider, request)
        except ParomaError as error:
            refused = self.sign_in.closed(f"You are not signed in: {error.message}.", sentence(error.do))
            refused.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="lax")
            return refused
        reply = self.signed_in(opened.session.name, to)
        life = int(opened.session.ends - self.sign_in.clock.now())
        reply.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="lax")
        self._set(reply, self.sign_in.cookie, opened.cookie, life, "strict")
        return reply

    async def _answered(self, provider: Provider, request: Request) -> tuple[Opened, str]:
        said, sign_in = request.query_params, self.sign_in
        if len(said.multi_items()) != len(said) or any(len(value) > 4_096 for value in said.values()):
            raise BadInput("the provider's answer cannot be read", do="sign in again from the beginning")
        now, cookie = sign_in.clock.now(), request.cookies.get(self.cookie)
        begun, link, to = await sign_in.store.write(lambda tx: logins.take(tx, cookie, said.get("state", ""), now=now))
        issuer = said.get("iss")
        named = (await provider.document()).authorization_response_iss_parameter_supported
        if issuer != provider.settings.issuer and (named or issuer is not None):  # RFC 9207: another provider's answer
            raise LoginInvalid("another provider answered")
        if "error" in said or not said.get("code"):
            raise LoginInvalid("the provider did not let you in", do="sign in again, or ask whoever runs the provider")
        identity = await provider.redeem(said["code"], begun, sign_in.origin + CALLBACK)
        browser = request.headers.get("user-agent", "a browser")[:100]

        def admit(tx: Connection) -> Opened:
            person, fresh = logins.admit(
                tx,
                identity,
                link=link,
                role=provider.settings.role(identity.claims),
                site=self.site,
                now=now,
                randomness=sign_in.randomness,
            )
            if fresh:
                self.enrolled(tx, person)
            return self._open(tx, person, identity, browser, now)

        return await sign_in.store.write(admit), to

    def _open(self, tx: Connection, person: Person, identity: Identity, browser: str, now: float) -> Opened:
        return logins.open_session(tx, person, identity, browser=browser, now=now, randomness=self.sign_in.randomness)

    async def keys(self, _request: Request) -> Response:
        """The public keys by which the provider knows this program as its client."""
        return as_json(self._there().jwks)

    async def back_channel(self, request: Request) -> Response:
        """The provider says that somebody signed out there: their sessions here end."""
        provider = self._there()
        try:
            fields = parse_qsl(
                (await body_of(request, MOST_FORM)).decode("ascii"), strict_parsing=True, max_num_fields=4
            )
        except ValueError as error:
            raise BadInput("this is no form", do="send `logout_token`") from error
        tokens = [value for name, value in fields if name == "logout_token"]
        if len(tokens) != 1:
            raise BadInput("the form holds no logout token", do="send `logout_token`, once")
        try:
            out = await provider.logged_out(tokens[0])
        except LoginInvalid as error:
            raise BadInput(error.message, do=error.do) from error
        await self.sign_in.store.write(lambda tx: logins.end(tx, out))
        return Response(status_code=200)

    @property
    def _secure(self) -> bool:
        return self.sign_in.origin.startswith("https:")

    def _set(self, reply: Response, name: str, value: str, life: int, samesite: str) -> None:
        reply.set_cookie(
            name,
            value,
            max_age=life,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict" if samesite == "strict" else "lax",
        )

    def _there(self) -> Provider:
        if self.provider is None:
            raise NotHere
        return self.provider
