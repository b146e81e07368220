"""The hub as an ASGI program: its routes, and who gets in."""

from sqlalchemy import Connection
from starlette.responses import Response
from starlette.types import ASGIApp

from paroma.hub.api import policies
from paroma.hub.api.line import LineRoutes
from paroma.hub.api.pages import PageRoutes
from paroma.hub.api.people import PeopleRoutes
from paroma.hub.api.sessions import SessionPages
from paroma.hub.parts import Hub
from paroma.kernel.release import VERSION
from paroma.trust.identity.people import Person
from paroma.web.console.run import closed_page
from paroma.web.kit.http import page, program
from paroma.web.kit.sessions import OwnRoutes
from paroma.web.kit.sign_in import SignIn


def sign_in_of(hub: Hub) -> SignIn:
    """How people and sites get in here."""

    def closed(headline: str, what_to_do: str) -> Response:
        shown = closed_page(federation=hub.settings.name, headline=headline, what_to_do=what_to_do, release=VERSION)
        return page(shown, 403)

    def enrolled(tx: Connection, person: Person) -> None:
        hub.log.write(tx, "person-enrolled", person=person.person, role=person.role, key=person.thumbprint)

    return SignIn(
        store=hub.store,
        origin=hub.settings.url,
        place=hub.settings.name,
        clock=hub.ports.clock,
        randomness=hub.ports.randomness,
        nonces=hub.nonces,
        issuer=hub.issuer,
        verifier=hub.verifier,
        find=hub.find,
        closed=closed,
        home=lambda _session: "/",
        enrolled=enrolled,
    )


def make_app(hub: Hub) -> ASGIApp:
    """The program. Its lifespan starts and stops the hub's jobs."""
    sign_in = sign_in_of(hub)
    people = PeopleRoutes(hub, sign_in)
    own = OwnRoutes(store=hub.store, sign_in=sign_in, desk=hub.gate.desk)
    routes = [
        *LineRoutes(hub, sign_in).routes(),
        *sign_in.routes(),
        *people.routes(),
        *policies.routes(hub, people),
        *own.routes(),
        *PageRoutes(hub, sign_in, people).routes(),
        *SessionPages(hub, sign_in, own).routes(),
    ]
    return program(routes, start=hub.start, stop=hub.stop)
