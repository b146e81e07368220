"""Routes of the patient's pages. They show this patient's own lines and nobody else's: the session says who is looking.

Every act goes through the site's gate, and a refusal stands in the log, without the patient. A no is the exception: the gate is
asked and what it says is logged, but whatever it says the no is carried out. No policy can stand between a patient and it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from paroma.data.consent import state as consent
from paroma.data.consent.statement import EVERYTHING, Scope
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId
from paroma.site import reports
from paroma.site.parts import Site
from paroma.trust.identity.people import Session, SessionEnded
from paroma.trust.policy import facts
from paroma.trust.policy.facts import Entity, Facts
from paroma.web.kit.http import NotHere, page
from paroma.web.kit.sign_in import SignIn, closed_for
from paroma.web.portal import views
from paroma.web.portal.views import Someone

Show = Callable[[Request, Session], Awaitable[Response]]
READ: Final = facts.ReadOwnUses(proven=True)
WITHDRAW: Final = facts.Withdraw(proven=True, enrolled=True, roles=frozenset())


class PortalRoutes:
    """The routes of patients."""

    def __init__(self, site: Site, sign_in: SignIn) -> None:
        self._site = site
        self._sign_in = sign_in

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/me", self._for_patient(self.home), methods=["GET"]),
            Route("/me/uses", self._for_patient(self.uses), methods=["GET"]),
            Route("/me/withdraw", self._for_patient(self.ask, WITHDRAW), methods=["GET"]),
            Route("/me/withdraw", self._for_patient(self.withdraw, WITHDRAW), methods=["POST"]),
            Route("/me/give", self._for_patient(self.give, facts.Give(proven=True)), methods=["POST"]),
            Route("/me/receipts/{number}", self._for_patient(self.receipt), methods=["GET"]),
        ]

    def _for_patient(self, show: Show, asked: Facts = READ) -> Callable[[Request], Awaitable[Response]]:
        async def shown(request: Request) -> Response:
            try:
                session = await self._sign_in.session(request)
            except SessionEnded as error:
                return closed_for(self._sign_in, error)
            if session.role != "patient":
                raise NotHere
            gate, me = self._site.gate, Entity("Patient", session.subject)
            decision = gate.decide(me, asked, me)
            if decision.allowed:
                return await show(request, session)
            if asked is not WITHDRAW:
                await self._site.store.write(lambda tx: gate.refused_patient(tx, asked, decision))
                decision.require()
            done = await show(request, session)  # first, so that nothing about the policy can come between
            if request.method == "POST":
                await self._site.store.write(lambda tx: gate.not_heeded(tx, asked, decision))
            return done

        return shown

    async def home(self, _request: Request, session: Session) -> Response:
        """GET /me"""
        site, patient = self._site, PatientId(session.subject)

        uses, choice = await site.store.read(lambda tx: (reports.uses(tx, site, patient), reports.choice(tx, patient)))
        return page(views.home(reports.clinic(site), self._someone(session), uses, choice))

    async def uses(self, _request: Request, session: Session) -> Response:
        """GET /me/uses"""
        site = self._site
        uses = await site.store.read(lambda tx: reports.uses(tx, site, PatientId(session.subject)))
        return page(views.uses_page(reports.clinic(site), self._someone(session), uses))

    async def ask(self, request: Request, session: Session) -> Response:
        """GET /me/withdraw"""
        site, patient = self._site, PatientId(session.subject)
        uses, choice = await site.store.read(lambda tx: (reports.uses(tx, site, patient), reports.choice(tx, patient)))
        return page(
            views.withdraw_page(reports.clinic(site), self._someone(session), uses, choice, form_key=self._key(request))
        )

    async def withdraw(self, request: Request, session: Session) -> Response:
        """POST /me/withdraw: when this answers, the withdrawal is durable and no worker reads the patient."""
        form = await self._sign_in.checked_form(request)
        what = form.get("what", "")
        scope = EVERYTHING if what == "all" else Scope("study", what)
        if scope != EVERYTHING:
            uses = await self._site.store.read(lambda tx: reports.uses(tx, self._site, PatientId(session.subject)))
            if what not in {use.study for use in uses}:
                raise BadInput("the form names no study of yours", do="load the page again, and choose")
        done = await self._site.withdraw(PatientId(session.subject), scope, by="patient")
        return RedirectResponse(f"/me/receipts/{done.choice.number}", 303)

    async def give(self, request: Request, session: Session) -> Response:
        """POST /me/give"""
        await self._sign_in.checked_form(request)
        await self._site.give(PatientId(session.subject), EVERYTHING, by="patient")
        return RedirectResponse("/me", 303)

    async def receipt(self, request: Request, session: Session) -> Response:
        """GET /me/receipts/{number}"""
        site, number = self._site, request.path_params["number"]

        def look(tx: Connection) -> views.Receipt | None:
            choice = consent.choice(tx, number)
            if choice is None or choice.patient != session.subject or choice.says != "no":
                return None
            return reports.receipt(tx, site, choice)

        found = await site.store.read(look)
        if found is None:
            raise NotHere
        return page(
            views.receipt_page(reports.clinic(site), self._someone(session), found, form_key=self._key(request))
        )

    def _someone(self, session: Session) -> Someone:
        """The patient by the name in their own record."""
        return Someone(name=reports.name_of(self._site, PatientId(session.subject)))

    def _key(self, request: Request) -> str:
        return self._sign_in.form_key(request)
