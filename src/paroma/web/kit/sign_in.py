"""How somebody gets in, the same at hub and site: tokens for keys, enrolment links, and browser sessions from single-use links.

There is no password and no other door. A link opened twice, run out or never made gives the same page.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import PersonId
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import Store
from paroma.trust.channel.authenticate import (
    NONCE_HEADER,
    Principal,
    authenticate,
    prove,
    refused_proof,
)
from paroma.trust.channel.messages import TOKEN_PATH
from paroma.trust.identity import clients, epoch, people
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import NonceNeeded, Nonces, Replayed
from paroma.trust.identity.people import LinkSpent, Person, PersonUnknown, Session, SessionEnded
from paroma.trust.identity.tokens import Verifier
from paroma.web.kit.http import as_json, body_of, json_of

SAFE: Final = frozenset({"GET", "HEAD"})
ENROL_PATH: Final = "/people/enrol"
BROWSER_PATH: Final = "/people/browser-link"


class Enrol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /people/enrol."""

    code: str
    jwk: dict[str, str]


class Enrolled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its answer: who somebody is here."""

    person: str
    name: str
    role: str
    site: str | None
    place: str  # the federation's or the site's name


class BrowserLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /people/browser-link: the page that is wanted."""

    to: str


@dataclass(slots=True, kw_only=True)
class SignIn:
    """Parts of one program's sign-in. `origin`: under which it is known; proofs are made for it."""

    store: Store
    origin: str
    place: str
    clock: Clock
    randomness: Randomness
    nonces: Nonces
    issuer: Issuer
    verifier: Verifier
    find: Callable[[Connection, str], Client | None]
    closed: Callable[[str, str], Response]  # the page that says why a link opens nothing: headline, what to do
    home: Callable[[Session], str]  # where a session begins
    enrolled: Callable[[Connection, Person], None] = lambda _tx, _person: None

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route(TOKEN_PATH, self._token, methods=["POST"]),
            Route(ENROL_PATH, self._enrol, methods=["POST"]),
            Route(BROWSER_PATH, self._browser_link, methods=["POST"]),
            Route("/open/{code}", self._open, methods=["GET"]),
        ]

    @property
    def cookie(self) -> str:
        """The name of the session's cookie: its own for each program, as a browser sends cookies to all ports of a host."""
        name = f"paroma-session-{hashlib.sha256(self.origin.encode()).hexdigest()[:8]}"
        return f"__Host-{name}" if self.origin.startswith("https:") else name

    def form_key(self, request: Request) -> str:
        """What the forms on this session's pages carry."""
        return people.form_token(request.cookies.get(self.cookie, ""))

    def principal(self, request: Request) -> Principal:
        """Who sent this request, by token and proof: looked at once, as a proof is good once. Raises Unauthenticated."""
        known: Principal | None = getattr(request.state, "principal", None)
        if known is None:
            known = request.state.principal = authenticate(
                request.method,
                self.origin + request.url.path,
                _headers(request),
                now=self.clock.now(),
                nonces=self.nonces,
                verified=self.verifier,
            )
        return known

    async def person(self, request: Request) -> Person:
        """The person who sent this request, with a token and proof, or a browser's session.

        Raises Refused; PersonUnknown also for who was revoked a moment ago, whose token this program may still take.
        """
        if "authorization" in request.headers:
            who = self.principal(request)
            return await self.store.read(lambda tx: _still(tx, who.subject))
        session = await self.session(request)
        if request.method not in SAFE and request.headers.get("origin") != self.origin:
            raise Refused("this request comes from a page of another program", do="act from a page of this program")
        return await self.store.read(lambda tx: _still(tx, session.subject))

    async def session(self, request: Request) -> Session:
        """The living session of the browser. Raises SessionEnded."""
        cookie, now = request.cookies.get(self.cookie), self.clock.now()
        found = await self.store.read(lambda tx: people.session(tx, cookie, now=now))
        if now - found.seen >= people.SEEN_SECONDS:
            with contextlib.suppress(Unavailable):  # a list that is a minute behind is no reason to show no page
                await self.store.write(lambda tx: people.used(tx, found.session, now=now))
        return found

    async def checked_form(self, request: Request, most: int = 4_096) -> dict[str, str]:
        """A form of the session's own page. Raises BadInput, Refused."""
        from urllib.parse import parse_qsl

        try:
            fields = dict(parse_qsl((await body_of(request, most)).decode(), max_num_fields=20, strict_parsing=True))
        except ValueError as error:
            raise BadInput("the form cannot be read", do="load the page again, then send it") from error
        people.check_form(request.cookies.get(self.cookie, ""), fields.get("form_key", ""))
        return fields

    async def _token(self, request: Request) -> Response:
        body, proof = await body_of(request, clients.MOST_BODY), request.headers.get("dpop", "")
        found = await self.store.read(lambda tx: (self._client(tx, body), epoch.current(tx)))
        try:
            answer = self.issuer.grant(
                body, proof, url=self.origin + TOKEN_PATH, find=lambda _name: found[0], epoch=found[1]
            )
        except (NonceNeeded, Replayed, BadInput, Refused) as error:
            refused = refused_proof(error, self.nonces)
            said = {
                "error": refused.error if isinstance(error, NonceNeeded) else "invalid_client",
                "detail": error.message,
                "do": error.do,
            }
            return as_json(said, 400, {NONCE_HEADER: self.nonces.current()})
        return Response(answer, headers={NONCE_HEADER: self.nonces.current()}, media_type="application/json")

    def _client(self, tx: Connection, body: bytes) -> Client | None:
        try:
            claimed = clients.claimed(body)
        except BadInput:
            return None
        return self.find(tx, claimed)

    async def _enrol(self, request: Request) -> Response:
        said = await json_of(request, Enrol, 4_096)
        proof = prove("POST", self.origin + ENROL_PATH, _headers(request), now=self.clock.now(), nonces=self.nonces)
        now = self.clock.now()

        def spend(tx: Connection) -> Person:
            who = people.enrol(tx, said.code, said.jwk, now=now, randomness=self.randomness)
            if who.thumbprint != proof.thumbprint:
                raise Refused("the proof is by another key", do="send both with the key that you enrol")
            self.enrolled(tx, who)
            return who

        who = await self.store.write(spend)
        return as_json(Enrolled(person=who.person, name=who.name, role=who.role, site=who.site, place=self.place), 201)

    async def _browser_link(self, request: Request) -> Response:
        holder = self.principal(request)  # never by a session: a stolen cookie would live for ever
        who = await self.store.read(lambda tx: _still(tx, holder.subject))
        to = (await json_of(request, BrowserLink, 4_096)).to
        if not inside(to):
            raise BadInput("a link leads to a page of this program", do="give a path such as `/runs`")
        code = await self.store.write(
            lambda tx: people.browser_link(
                tx,
                who.person,
                name=who.name,
                role=who.role,
                site=who.site,
                now=self.clock.now(),
                randomness=self.randomness,
            )
        )
        return as_json({"url": f"{self.origin}/open/{code}?to={to}"}, 201)

    async def _open(self, request: Request) -> Response:
        code, to = request.path_params["code"], request.query_params.get("to", "")
        browser, cookie = request.headers.get("user-agent", "a browser")[:100], request.cookies.get(self.cookie)
        try:
            opened = await self.store.write(
                lambda tx: people.open_session(
                    tx, code, browser=browser, cookie=cookie, now=self.clock.now(), randomness=self.randomness
                )
            )
        except LinkSpent as error:
            return self.closed("This link does not open anything any more.", sentence(error.do))
        reply = RedirectResponse(to if inside(to) else self.home(opened.session), 303)
        reply.set_cookie(
            self.cookie,
            opened.cookie,
            max_age=int(opened.session.ends - self.clock.now()),
            path="/",
            secure=self.origin.startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return reply


def closed_for(sign_in: SignIn, error: SessionEnded) -> Response:
    """The page for a browser without a living session."""
    return sign_in.closed("You are not signed in here, or your time has passed.", sentence(error.do))


def _still(tx: Connection, subject: str) -> Person:
    """Whoever has this name, unless they were revoked. Raises PersonUnknown."""
    found = people.person(tx, PersonId(subject))
    if found.revoked is not None:
        raise PersonUnknown
    return found


def sentence(do: str) -> str:
    """A next step as a page says it."""
    return do[:1].upper() + do[1:] + "."


def inside(to: str) -> bool:
    """Whether `to` is a page of this program."""
    return to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable() and len(to) < 200


def _headers(request: Request) -> Sequence[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
