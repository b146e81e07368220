"""Routes of the site's people: officer and desk. Every one is decided by the site's own gate."""

from typing import TypeVar

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.data.consent import state as consent
from paroma.data.consent.statement import EVERYTHING
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, PermitId, PersonId, printable
from paroma.site import ending, facts as gathered, permits, reports
from paroma.site.parts import Site
from paroma.trust.audit import witness
from paroma.trust.identity import epoch, people
from paroma.trust.identity.people import Person
from paroma.trust.permit import permit as permit_types
from paroma.trust.permit.permit import Signature
from paroma.trust.policy import facts
from paroma.trust.policy.facts import Entity
from paroma.web.kit.http import as_json, body_of, json_of
from paroma.web.kit.sign_in import SignIn

F = TypeVar("F", bound=facts.Person)


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of what refuses or ends something."""

    reason: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What ended. at: unix s, since when. again: it had been done before."""

    id: str
    name: str
    at: float
    again: bool


class OfficerRoutes:
    """The routes of officer and desk."""

    def __init__(self, site: Site, sign_in: SignIn) -> None:
        self._site = site
        self._sign_in = sign_in

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/api/site", self.status, methods=["GET"]),
            Route("/api/requests", self.requests, methods=["GET"]),
            Route("/api/requests/{permit}/sign", self.sign, methods=["POST"]),
            Route("/api/requests/{permit}/refuse", self.refuse, methods=["POST"]),
            Route("/api/permits/{permit}/revoke", self.revoke, methods=["POST"]),
            Route("/api/people/{person}/revoke", self.revoke_person, methods=["POST"]),
            Route("/api/pause", self.pause, methods=["POST"]),
            Route("/api/resume", self.resume, methods=["POST"]),
            Route("/api/patients/{patient}/link", self.link, methods=["POST"]),
            Route("/api/patients/{patient}/withdraw", self.withdraw, methods=["POST"]),
            Route("/api/patients/{patient}/erase", self.erase, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:
        """How the site is: member, logs, walls, budget, runs. No patient."""
        await self._allowed(request, facts.ReadSite)
        return as_json(await reports.status(self._site))

    async def requests(self, request: Request) -> Response:
        """What was asked of this site, with how many patients may be used today."""
        await self._allowed(request, facts.ReadSite)
        site, now = self._site, self._site.ports.clock.now()

        def look(tx: Connection) -> list[permits.Request]:
            found = []
            for row in permits.rows(tx):
                permit = permits.signed_of(row).permit
                usable = consent.verdicts(tx, gathered.use_of(permit), now)
                found.append(
                    permits.Request(
                        permit=permit,
                        asked_by=row["asked_by"],
                        benefit=row["benefit"],
                        state=row["state"],
                        reasons=tuple(msgspec.json.decode(row["reasons"], type=list[str])),
                        patients=sum(usable(patient).allowed for patient in site.vault.patients()),
                    )
                )
            return found

        return as_json(await site.store.read(look))

    async def sign(self, request: Request) -> Response:
        """The officer's signature under a permit."""
        site, name = self._site, PermitId(request.path_params["permit"])
        who = await self._sign_in.person(request)  # before the body: a stranger's is not even read
        signature = await json_of(request, Signature, 4_096)
        permit, said = await site.store.read(lambda tx: asked_of(tx, name))
        person = await self._allowed(
            who,
            facts.SignPermit,
            resource=Entity("Study", permit.study),
            **said,
            attestation_asked=permit.attestation,
            takes_part=site.membership.site in permit_types.sites(permit),
        )
        if signature.officer != person.person or signature.key != person.thumbprint:
            raise Refused("the signature is not yours", do="sign with your own key")
        now = site.ports.clock.now()
        await site.store.write(lambda tx: permits.sign(tx, signature, name, site.membership.site, site.journal, now))
        site.line.wake()
        return Response(status_code=204)

    async def refuse(self, request: Request) -> Response:
        """The officer says no."""
        site, name = self._site, PermitId(request.path_params["permit"])
        who = await self._sign_in.person(request)
        said = await json_of(request, Reason, 4_096)
        person = await self._allowed(who, facts.Pause)
        now = site.ports.clock.now()
        await site.store.write(
            lambda tx: permits.refuse(tx, name, said.reason, site.membership.site, site.journal, now, by=person.person)
        )
        site.line.wake()
        return Response(status_code=204)

    async def revoke(self, request: Request) -> Response:
        """The officer ends a valid permit at this site: nothing more under it, whatever runs. The hub is told why."""
        site, name = self._site, PermitId(request.path_params["permit"])
        who = await self._sign_in.person(request)
        permit = await site.store.read(lambda tx: permits.permit_of(tx, name))
        about = Entity("Study", permit.study)
        person = await self._allowed(who, facts.RevokePermit, resource=about, is_applicant=False)
        reason = _words((await json_of(request, Reason, 4_096)).reason)
        before = await site.end_permit(name, reason, by=person.person)
        now = site.ports.clock.now()
        return as_json(Done(id=name, name=permit.title, at=before or now, again=before is not None))

    async def revoke_person(self, request: Request) -> Response:
        """The officer ends the key of one of this site's people."""
        site, who = self._site, PersonId(request.path_params["person"])
        person = await self._allowed(request, facts.RevokePerson, resource=Entity("Person", who))
        reason = _words((await json_of(request, Reason, 4_096)).reason)
        ended, again = await site.store.write(
            lambda tx: ending.revoke(
                tx,
                who,
                reason,
                key=site.key,
                membership=site.membership,
                journal=site.journal,
                clock=site.ports.clock,
                by=person.person,
            )
        )
        site.verifier.revoked(await site.store.read(epoch.current))
        site.line.wake()
        return as_json(Done(id=who, name=ended.name, at=ended.revoked or 0.0, again=again))

    async def erase(self, request: Request) -> Response:
        """Destroy a patient's records, backups included; the certificate."""
        patient = PatientId(request.path_params["patient"])
        person = await self._allowed(request, facts.Erase, resource=Entity("Patient", patient))
        reason = _words((await json_of(request, Reason, 4_096)).reason)
        return as_json(await ending.erase(self._site, patient, reason, by=person.person))

    async def pause(self, request: Request) -> Response:
        """Pause every use."""
        person = await self._allowed(request, facts.Pause)
        await self._site.pause(paused=True, by=person.person)
        return Response(status_code=204)

    async def resume(self, request: Request) -> Response:
        """Let uses go on."""
        site = self._site
        trouble = await site.store.read(lambda tx: witness.trouble(tx, site.federation.name))
        person = await self._allowed(request, facts.Resume, log="inconsistent" if trouble else "consistent")
        await site.pause(paused=False, by=person.person)
        return Response(status_code=204)

    async def link(self, request: Request) -> Response:
        """A single-use link for a patient."""
        patient = PatientId(request.path_params["patient"])
        await self._allowed(request, facts.IssuePatientLink, resource=Entity("Patient", patient))
        url = await self._site.store.write(lambda tx: patient_link(tx, self._site, patient))
        return as_json({"url": url}, 201)

    async def withdraw(self, request: Request) -> Response:
        """The desk writes down a patient's no."""
        patient = PatientId(request.path_params["patient"])
        who = await self._sign_in.person(request)
        await body_of(request, 1_024)
        person = await self._allowed(who, facts.Withdraw, resource=Entity("Patient", patient))
        reports.require_patient(self._site, patient)
        done = await self._site.withdraw(patient, EVERYTHING, by=person.person)
        return as_json({"number": done.choice.number, "entry": done.entry, "seconds": done.seconds}, 201)

    async def allowed(
        self, who: Request | Person, kind: type[F], *, resource: Entity | None = None, **more: object
    ) -> Person:
        """Whoever asks, if they may do this at this site. Raises Refused, and logs it."""
        return await self._allowed(who, kind, resource=resource, **more)

    async def _allowed(
        self, who: Request | Person, kind: type[F], *, resource: Entity | None = None, **more: object
    ) -> Person:
        person = await self._sign_in.person(who) if isinstance(who, Request) else who
        asked = kind(proven=True, enrolled=person.revoked is None, roles=frozenset({person.role}), **more)
        where = resource or Entity("Site", self._site.membership.site)
        gate, me = self._site.gate, Entity("Person", person.person)
        decision = gate.decide(me, asked, where)
        if not decision.allowed:
            await self._site.store.write(lambda tx: gate.refused(tx, me, asked, where, decision))
        decision.require()
        return person


def _words(reason: str) -> str:
    said = printable(reason.strip(), longest=permits.LONGEST_REASON)
    if not said:
        raise BadInput("no reason is given", do="say why, in a sentence: it stands in the log")
    return said


def asked_of(tx: Connection, name: PermitId) -> tuple[permit_types.Permit, dict[str, object]]:
    """A permit that was asked for here, and what it asks, as policy reads it. Raises PermitNotHere."""
    permit = permits.permit_of(tx, name)
    return permit, gathered.asked(tx, permit)


def patient_link(tx: Connection, site: Site, patient: PatientId) -> str:
    """The address that opens a patient's pages once, within 15 minutes, in one browser. Raises BadInput."""
    name = reports.name_of(site, patient)
    code = people.browser_link(
        tx,
        patient,
        name=name,
        role="patient",
        site=site.membership.site,
        now=site.ports.clock.now(),
        randomness=site.ports.randomness,
    )
    return f"{site.settings.origin}/open/{code}"
