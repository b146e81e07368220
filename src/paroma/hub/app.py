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
from paroma.trust.federation import members
from paroma.trust.identity.people import KeyTaken, Person
from paroma.web.console.run import closed_page, signed_in_page
from paroma.web.kit.http import page, program
from paroma.web.kit.login import LoginRoutes
from paroma.web.kit.sessions import OwnRoutes
from paroma.web.kit.sign_in import SignIn


def sign_in_of(hub: Hub) -> SignIn:
    """How people and sites get in here."""

    def closed(headline: str, what_to_do: str) -> Response:
        shown = closed_page(
            federation=hub.settings.name,
            headline=headline,
            what_to_do=what_to_do,
            release=VERSION,
            login=hub.provider is not None,
        )
        return page(shown, 403)

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
        enrolled=lambda tx, person: _enrolled(hub, tx, person),
    )


def login_of(hub: Hub, sign_in: SignIn) -> LoginRoutes:
    """How people get in who sign in at a provider."""

    def signed_in(person: str, to: str) -> Response:
        return page(signed_in_page(federation=hub.settings.name, person=person, to=to, release=VERSION))

    return LoginRoutes(
        sign_in=sign_in,
        provider=hub.provider,
        site=None,
        signed_in=signed_in,
        enrolled=lambda tx, person: _enrolled(hub, tx, person),
    )


def _enrolled(hub: Hub, tx: Connection, person: Person) -> None:
    """Somebody is new here. Raises KeyTaken: an officer's key signs permits, and applies for none."""
    if person.key is not None and any(one.key == person.key for one in members.officers(tx)):
        raise KeyTaken
    hub.log.write(tx, "person-enrolled", person=person.person, role=person.role, key=person.thumbprint)


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
        *login_of(hub, sign_in).routes(),
        *PageRoutes(hub, sign_in, people).routes(),
        *SessionPages(hub, sign_in, own).routes(),
    ]
    return program(routes, start=hub.start, stop=hub.stop)
