"""The hub's page of one's own sessions and acts."""

import re

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from paroma.hub.parts import Hub
from paroma.kernel.ids import PersonId
from paroma.kernel.release import VERSION
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, SessionEnded
from paroma.web.console.sessions import Done, sessions_page
from paroma.web.kit.http import page
from paroma.web.kit.sessions import OwnRoutes
from paroma.web.kit.sign_in import SignIn, closed_for

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


class SessionPages:
    """The routes of the page."""

    def __init__(self, hub: Hub, sign_in: SignIn, own: OwnRoutes) -> None:
        self._hub = hub
        self._sign_in = sign_in
        self._own = own

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/me/sessions", self.show, methods=["GET"]),
            Route("/me/sessions/{session}/end", self.end, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Where one is signed in, and what one did here."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        rows = await self._own.own(person, request)
        acts = tuple(
            Done(what=in_words(a.action), on=a.on, allowed=a.allowed, policy=a.policy, times=a.times, at=a.at)
            for a in await self._own.did(person)
        )
        shown = sessions_page(
            rows,
            acts,
            federation=self._hub.settings.name,
            person=person.name,
            release=VERSION,
            form_key=self._sign_in.form_key(request),
        )
        return page(shown)

    async def end(self, request: Request) -> Response:
        """End one of one's own sessions, by the button on the page."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        await self._sign_in.checked_form(request)
        name = request.path_params["session"]
        await self._hub.store.write(lambda tx: people.revoke_session(tx, person.person, name))
        return RedirectResponse("/me/sessions", 303)

    async def _person(self, request: Request) -> Person:
        session = await self._sign_in.session(request)
        return await self._hub.store.read(lambda tx: people.person(tx, PersonId(session.subject)))


def in_words(action: str) -> str:
    """`ReadMembers` as `Read members`."""
    first, *rest = _WORDS.sub(" ", action).split(" ")
    return " ".join([first, *(word.lower() for word in rest)])
