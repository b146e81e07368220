"""The site as an ASGI program: the patient's pages, the interface of officer and desk, sign-in. Nothing here is for the hub."""

from starlette.responses import Response
from starlette.types import ASGIApp

from paroma.site import reports
from paroma.site.api import policies
from paroma.site.api.officer import OfficerRoutes
from paroma.site.api.officer_pages import OfficerPages
from paroma.site.api.portal import PortalRoutes
from paroma.site.parts import Site
from paroma.trust.identity import people
from paroma.web.kit.http import page, program
from paroma.web.kit.login import LoginRoutes
from paroma.web.kit.sessions import OwnRoutes
from paroma.web.kit.sign_in import SignIn
from paroma.web.portal.views import closed_page, signed_in_page


def sign_in_of(site: Site) -> SignIn:
    """How patients, officers and the desk get in here."""

    def closed(headline: str, what_to_do: str) -> Response:
        return page(closed_page(reports.clinic(site), headline=headline, what_to_do=what_to_do), 403)

    return SignIn(
        store=site.store,
        origin=site.settings.origin,
        place=site.membership.title,
        clock=site.ports.clock,
        randomness=site.ports.randomness,
        nonces=site.nonces,
        issuer=site.issuer,
        verifier=site.verifier,
        find=people.find_client,
        closed=closed,
        home=lambda session: "/me" if session.role == "patient" else "/officer",
        enrolled=site.enrolled,
    )


def login_of(site: Site, sign_in: SignIn) -> LoginRoutes:
    """How the site's people get in who sign in at a provider."""

    def signed_in(_person: str, to: str) -> Response:
        return page(signed_in_page(reports.clinic(site), to="/officer" if to == "/" else to))

    return LoginRoutes(
        sign_in=sign_in,
        provider=site.provider,
        site=site.membership.site,
        signed_in=signed_in,
        enrolled=site.enrolled,
    )


def make_app(site: Site) -> ASGIApp:
    """The program. Its lifespan starts and stops the site's jobs."""
    sign_in = sign_in_of(site)
    officers = OfficerRoutes(site, sign_in)
    routes = [
        *sign_in.routes(),
        *officers.routes(),
        *policies.routes(site, officers),
        *login_of(site, sign_in).routes(),
        *OwnRoutes(store=site.store, sign_in=sign_in, desk=site.gate.desk).routes(),
        *PortalRoutes(site, sign_in).routes(),
        *OfficerPages(site, sign_in, officers).routes(),
    ]
    return program(routes, start=site.start, stop=site.stop)
