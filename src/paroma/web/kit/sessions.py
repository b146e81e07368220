"""One's own sessions and acts, the same at hub and site: everybody sees where they are signed in, ends it, and reads what they did.

Nothing here names another person: whose sessions and whose acts is said by who asks, never by the address.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.kernel.store.database import Store
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, Session
from paroma.trust.policy import kept
from paroma.trust.policy.desk import Desk
from paroma.web.kit.http import as_json
from paroma.web.kit.sign_in import SignIn

MOST_ACTS = 200


class SessionSeen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a person's sessions. opened, seen, ends: unix s. here: the one that asks."""

    session: str
    browser: str
    opened: float
    seen: float
    ends: float
    here: bool


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that a person asked for. decision: its id. times: how often the same was asked; at: the last time, unix s."""

    decision: str
    action: str
    on: str
    allowed: bool
    policy: str
    times: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRoutes:
    """The routes of everybody's own sessions and acts."""

    store: Store
    sign_in: SignIn
    desk: Desk

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/api/me/sessions", self.sessions, methods=["GET"]),
            Route("/api/me/sessions/{session}/end", self.end, methods=["POST"]),
            Route("/api/me/acts", self.acts, methods=["GET"]),
        ]

    async def sessions(self, request: Request) -> Response:
        """Where one is signed in: one's own sessions, the newest first."""
        person = await self.sign_in.person(request)
        return as_json(await self.own(person, request))

    async def end(self, request: Request) -> Response:
        """End one of one's own sessions; what is left. Another's, or one that never was, changes nothing."""
        person = await self.sign_in.person(request)
        name = request.path_params["session"]
        await self.store.write(lambda tx: people.revoke_session(tx, person.person, name))
        return as_json(await self.own(person, request))

    async def acts(self, request: Request) -> Response:
        """What one asked for here and what was decided, as long as decisions are kept; the newest first."""
        return as_json(await self.did(await self.sign_in.person(request)))

    async def own(self, person: Person, request: Request) -> tuple[SessionSeen, ...]:
        """The person's living sessions; `here` is the one that this request came in."""
        cookie, now = request.cookies.get(self.sign_in.cookie), self.sign_in.clock.now()
        found = await self.store.read(lambda tx: people.sessions(tx, person.person, now=now))
        here: Session | None = None
        if cookie is not None:
            here = await self.store.read(lambda tx: people.living(tx, cookie, now=now))
        return tuple(
            SessionSeen(
                session=one.session,
                browser=one.browser,
                opened=one.opened,
                seen=one.seen,
                ends=one.ends,
                here=here is not None and one.session == here.session,
            )
            for one in found
        )

    async def did(self, person: Person) -> tuple[Act, ...]:
        """What the person asked for, up to this very request."""
        await self.desk.keep(self.store)
        found = await self.store.read(lambda tx: kept.of(tx, person.person, MOST_ACTS))
        return tuple(
            Act(
                decision=one.decision,
                action=one.ask.action,
                on=f"{one.ask.resource.kind} {one.ask.resource.id}",
                allowed=one.allowed,
                policy=one.policy,
                times=one.times,
                at=one.at,
            )
            for one in found
        )
