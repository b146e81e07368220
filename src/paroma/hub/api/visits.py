"""How a page of the hub is shown: the browser's session says who looks, and what is refused is told as a page."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from paroma.hub.gate import as_entity, as_person
from paroma.hub.parts import Hub
from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.ids import PersonId
from paroma.kernel.release import VERSION
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, SessionEnded
from paroma.trust.policy import facts
from paroma.web.console.timeline import refused_page
from paroma.web.kit.http import page
from paroma.web.kit.sign_in import SignIn, closed_for

Show = Callable[[Request, Person], Awaitable[Response]]


class Visits:
    """Wraps what shows a page."""

    def __init__(self, hub: Hub, sign_in: SignIn) -> None:
        self._hub = hub
        self._sign_in = sign_in

    def page(self, show: Show, kind: type[facts.Person] | None = None) -> Callable[[Request], Awaitable[Response]]:
        """kind: decided by the gate before anything is read; None where `show` decides on what is asked for."""

        async def shown(request: Request) -> Response:
            try:
                session = await self._sign_in.session(request)
            except SessionEnded as error:
                return closed_for(self._sign_in, error)
            try:
                person = await self._hub.store.read(lambda tx: people.person(tx, PersonId(session.subject)))
                if kind is not None:
                    await self._hub.gate.require(as_entity(person), kind(**as_person(person)))  # type: ignore[arg-type]
                return await show(request, person)
            except (Refused, BadInput) as error:
                return self._refused(error, session.name)

        shown.__doc__ = show.__doc__
        return shown

    def _refused(self, error: ParomaError, person: str) -> Response:
        said = refused_page(
            headline="This is not shown.",
            why=_sentence(error.message),
            what_to_do=_sentence(error.do),
            federation=self._hub.settings.name,
            person=person,
            release=VERSION,
        )
        return page(said, 400 if isinstance(error, BadInput) else 403)


def _sentence(said: str) -> str:
    return said[:1].upper() + said[1:] + "."
