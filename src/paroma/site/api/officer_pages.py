"""The officer's pages at a site: requests, permits, staff, health, and the pause on every page.

A browser's session says who is looking; every page and every act goes through the site's gate, and a refusal stands in the log.
Signing is not among the acts: it needs the officer's own key. What is refused is told as a page, with what would pass.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from difflib import unified_diff
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from paroma.data.consent import state as consent
from paroma.kernel.clock import iso
from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.ids import PermitId, PersonId
from paroma.kernel.release import VERSION
from paroma.site import facts as gathered, parts, permits, reports
from paroma.site.api.officer import OfficerRoutes
from paroma.site.gate import HUB
from paroma.site.parts import Site
from paroma.trust.audit import witness
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, SessionEnded
from paroma.trust.permit import permit as permit_types
from paroma.trust.permit.permit import Permit
from paroma.trust.policy import facts, purposes
from paroma.trust.policy.decide import Ask, decide
from paroma.trust.policy.facts import Entity
from paroma.web.kit.http import page
from paroma.web.kit.pages import day, lasted
from paroma.web.kit.sign_in import SignIn, closed_for
from paroma.web.officer import views
from paroma.web.officer.views import Change, Check, Desk, Health, Line, Member, Request, Row

Show = Callable[[HttpRequest, Person], Awaitable[Response]]
STATES: Final = ("waiting", "signed", "valid", "refused", "revoked")
SHOWN: Final = frozenset({"waiting", "signed", "valid"})  # while patients may be asked about
_PAGE: Final = re.compile(r"/officer(/[a-z0-9-]+)*")


class ForStaff(Refused):
    """A patient's session opens no page of the staff."""

    def __init__(self) -> None:
        super().__init__("these pages are for the hospital's staff", do="open your own pages: /me")


class OfficerPages:
    """The routes of the pages."""

    def __init__(self, site: Site, sign_in: SignIn, officers: OfficerRoutes) -> None:
        self._site = site
        self._sign_in = sign_in
        self._officers = officers

    def routes(self) -> list[Route]:
        """The routes."""
        look = facts.ReadSite
        return [
            Route("/officer", self._for_staff(self.inbox, look), methods=["GET"]),
            Route("/officer/requests/{permit}", self._for_staff(self.request, look), methods=["GET"]),
            Route("/officer/requests/{permit}/refuse", self._for_staff(self.refuse, facts.Pause), methods=["POST"]),
            Route("/officer/permits/{permit}/end", self._for_staff(self.ask_end, look), methods=["GET"]),
            Route("/officer/permits/{permit}/end", self._for_staff(self.end, None), methods=["POST"]),
            Route("/officer/staff", self._for_staff(self.staff, look), methods=["GET"]),
            Route("/officer/health", self._for_staff(self.health, look), methods=["GET"]),
            Route("/officer/pause", self._for_staff(self.pause, facts.Pause), methods=["POST"]),
            Route("/officer/resume", self._for_staff(self.resume, None), methods=["POST"]),
        ]

    def _for_staff(self, show: Show, kind: type[facts.Person] | None) -> Callable[[HttpRequest], Awaitable[Response]]:
        """kind: decided before anything is read; None where `show` has more facts to decide on."""

        async def shown(request: HttpRequest) -> Response:
            try:
                session = await self._sign_in.session(request)
            except SessionEnded as error:
                return closed_for(self._sign_in, error)
            try:
                if session.role == "patient":
                    raise ForStaff
                person = await self._site.store.read(lambda tx: people.person(tx, PersonId(session.subject)))
                if kind is not None:
                    await self._officers.allowed(person, kind)
                return await show(request, person)
            except (Refused, BadInput) as error:
                return self._refused(error, session.name if session.role != "patient" else "")

        shown.__doc__ = show.__doc__
        return shown

    def _refused(self, error: ParomaError, person: str) -> Response:
        said = views.refused_page(
            hospital=self._site.membership.title,
            person=person,
            headline="This was not done.",
            why=_sentence(error.message),
            what_to_do=_sentence(error.do),
            release=VERSION,
        )
        return page(said, 400 if isinstance(error, BadInput) else 403)

    # -- reading

    async def inbox(self, request: HttpRequest, person: Person) -> Response:
        """What is asked of this hospital, by state; waiting ones count their patients."""
        chosen = request.query_params.get("state", "")
        if chosen and chosen not in STATES:
            raise BadInput("there is no such state of a request", do=f"name one of {', '.join(STATES)}")
        site, now = self._site, self._site.ports.clock.now()

        def look(tx: Connection) -> tuple[Desk, tuple[Row, ...]]:
            found = []
            for row in permits.rows(tx):
                if chosen and row["state"] != chosen:
                    continue
                permit = permits.signed_of(row).permit
                patients = self._usable(tx, permit, now)[0][True] if row["state"] in SHOWN else None
                found.append(
                    Row(
                        permit=permit.id,
                        title=permit.title,
                        asked_by=row["asked_by"],
                        purpose=permit.purpose,
                        state=row["state"],
                        since=row["at"],
                        waited=lasted(now - row["at"]),
                        patients=patients,
                    )
                )
            return self._desk(tx, request, person), tuple(found)

        desk, rows = await site.store.read(look)
        return page(views.inbox_page(desk, rows, chosen=chosen))

    async def request(self, request: HttpRequest, person: Person) -> Response:
        """One request: plain words, evidence, what changed, what to do."""
        desk, view = await self._site.store.read(lambda tx: self._look(tx, request, person))
        return page(views.request_page(desk, view))

    async def ask_end(self, request: HttpRequest, person: Person) -> Response:
        """Asks once more before a permit ends here."""
        return await self._end_page(request, person)

    async def staff(self, request: HttpRequest, person: Person) -> Response:
        """Everybody who is or was enrolled at this site."""

        def look(tx: Connection) -> tuple[Desk, tuple[Member, ...]]:
            rows = tuple(
                Member(person=one.person, name=one.name, role=one.role, enrolled=one.enrolled, revoked=one.revoked)
                for one in people.people(tx)
            )
            return self._desk(tx, request, person), rows

        return page(views.staff_page(*await self._site.store.read(look)))

    async def health(self, request: HttpRequest, person: Person) -> Response:
        """Line, logs, walls and runs of this site."""
        site = self._site
        found = await reports.status(site)
        desk = await site.store.read(lambda tx: self._desk(tx, request, person))
        heard = "not since this program started"
        if site.heard is not None:
            heard = f"{lasted(site.ports.clock.now() - site.heard)} ago"
        own, seen = found.log, found.federation_log
        if seen.trouble:
            judged = ("not trusted", seen.trouble)
        else:
            judged = ("trusted", "no contradiction so far") if seen.size else ("", "not read yet")
        view = Health(
            online=site.online,
            heard=heard,
            hub=found.hub,
            owner=found.owner,
            patients=found.patients,
            budget=found.budget[:16],
            logs=(
                ("this site’s log", own.size, own.cosigned, "", "written here: others judge it"),
                ("the federation log", seen.size, seen.cosigned, *judged),
            ),
            walls=tuple((wall.name, "stands" if wall.there else "missing", wall.why) for wall in found.walls),
            missing=found.walls_missing,
            runs=tuple((run.run, run.permit, run.step) for run in found.runs if not run.over),
            failures=found.failures[::-1],
        )
        return page(views.health_page(desk, view))

    # -- acts

    async def refuse(self, request: HttpRequest, person: Person) -> Response:
        """The officer says no, with a reason from the list or in own words."""
        site, name = self._site, PermitId(request.path_params["permit"])
        reason, words = await self._reason(request)
        if not reason:
            desk, view = await site.store.read(lambda tx: self._look(tx, request, person))
            return page(views.request_page(desk, view, error=NO_REASON, said=words), 400)
        now = site.ports.clock.now()
        await site.store.write(
            lambda tx: permits.refuse(tx, name, reason, site.membership.site, site.journal, now, by=person.person)
        )
        site.line.wake()
        return RedirectResponse(f"/officer/requests/{name}", 303)

    async def end(self, request: HttpRequest, person: Person) -> Response:
        """The officer ends a valid permit at this site."""
        site, name = self._site, PermitId(request.path_params["permit"])
        permit = await site.store.read(lambda tx: permits.permit_of(tx, name))
        about = Entity("Study", permit.study)
        await self._officers.allowed(person, facts.RevokePermit, resource=about, is_applicant=False)
        reason, words = await self._reason(request)
        if not reason:
            return await self._end_page(request, person, error=NO_REASON, said=words)
        await site.end_permit(name, reason, by=person.person)
        return RedirectResponse(f"/officer/requests/{name}", 303)

    async def pause(self, request: HttpRequest, person: Person) -> Response:
        """Pause every use, and show the same page again."""
        form = await self._sign_in.checked_form(request)
        await self._site.pause(paused=True, by=person.person)
        return RedirectResponse(_back(form), 303)

    async def resume(self, request: HttpRequest, person: Person) -> Response:
        """Let uses go on, and show the same page again."""
        site = self._site
        trouble = await site.store.read(lambda tx: witness.trouble(tx, site.federation.name))
        await self._officers.allowed(person, facts.Resume, log="inconsistent" if trouble else "consistent")
        form = await self._sign_in.checked_form(request)
        await site.pause(paused=False, by=person.person)
        return RedirectResponse(_back(form), 303)

    async def _reason(self, request: HttpRequest) -> tuple[str, str]:
        """The reason in one sentence, empty where none was given; and the own words alone. Raises BadInput, Refused."""
        form = await self._sign_in.checked_form(request)
        chosen, words = form.get("reason", ""), form.get("words", "").strip()[:250]
        if chosen and chosen not in views.REASONS:
            raise BadInput("the form names a reason that is not in the list", do="load the page again, and choose")
        return ": ".join(one for one in (chosen, words) if one), words

    # -- what the pages say

    def _desk(self, tx: Connection, request: HttpRequest, person: Person) -> Desk:
        return Desk(
            hospital=self._site.membership.title,
            person=person.name,
            role=person.role,
            decides=person.role == "officer",
            paused=gathered.paused(tx),
            form_key=self._sign_in.form_key(request),
            release=VERSION,
        )

    async def _end_page(self, request: HttpRequest, person: Person, *, error: str = "", said: str = "") -> Response:
        site, name = self._site, PermitId(request.path_params["permit"])

        def look(tx: Connection) -> tuple[Desk, str]:
            row = _row(tx, name)
            if row["state"] != "valid":
                raise permits.NotValidYet(name, row["state"])
            return self._desk(tx, request, person), permits.signed_of(row).permit.title

        desk, title = await site.store.read(look)
        running = sum(run.permit == name and not run.over for run in (await reports.status(site)).runs)
        made = views.end_page(desk, permit=name, title=title, running=running, error=error, said=said)
        return page(made, 400 if error else 200)

    def _usable(self, tx: Connection, permit: Permit, now: float) -> tuple[Counter[bool], Counter[str]]:
        """How many patients may be used (True) and may not; and by what rules they may not."""
        said = consent.verdicts(tx, gathered.use_of(permit), now)
        verdicts = [said(patient) for patient in self._site.vault.patients()]
        return Counter(v.allowed for v in verdicts), Counter(in_words(v.rule) for v in verdicts if not v.allowed)

    def _look(self, tx: Connection, request: HttpRequest, person: Person) -> tuple[Desk, Request]:
        site, now = self._site, self._site.ports.clock.now()
        row = _row(tx, request.path_params["permit"])
        signed = permits.signed_of(row)
        permit = signed.permit
        usable, rules = self._usable(tx, permit, now)
        titles = {m.site: m.title for m in members.members(tx)}
        here = {s.site for s in signed.signatures}
        if row["state"] in {"signed", "valid"}:
            here.add(site.membership.site)
        sites = permit_types.sites(permit)
        view = Request(
            permit=permit.id,
            title=permit.title,
            headline=_headline(row["state"], row["asked_by"], permit.title, usable[True]),
            state=row["state"],
            since=row["at"],
            waited=lasted(now - row["at"]),
            in_words=self._in_words(tx, row, permit),
            patients=usable[True],
            held=usable.total(),
            rules=tuple(rules.most_common()),
            checks=self._checks(tx, permit),
            digest=permit_types.digest(permit),
            change=_change(tx, row, permit),
            reasons=tuple(msgspec.json.decode(row["reasons"], type=list[str])),
            hospitals=tuple((titles.get(one, one), one in here) for one in sites),
            takes_part=site.membership.site in sites,
        )
        return self._desk(tx, request, person), view

    def _in_words(self, tx: Connection, row: RowMapping, permit: Permit) -> tuple[tuple[str, str], ...]:
        try:
            described = {f.name: f.title for f in parts.data_set_of(tx, permit.data_set).features}
        except BadInput:  # asked for something that this site does not hold: its names are all there is
            described = {}
        left_out = [title for name, title in described.items() if name not in permit.features]
        organisation = ", ".join(
            one for one in (permit.organisation, permit.organisation_kind, permit.country) if one != "unknown"
        )
        return (
            ("Who", row["asked_by"]),
            ("Organisation, as they say", organisation or "not said"),
            ("Why", purposes.ALLOWED.get(permit.purpose, permit.purpose)),
            ("Benefit, in their words", row["benefit"] or "not said"),
            ("Which data", ", ".join(described.get(name, name) for name in permit.features)),
            ("Not asked", ", ".join(left_out) or "nothing: it asks for all that the data set has"),
            ("Methods", ", ".join(permit.algorithms)),
            ("Never fewer than", f"{permit.least_patients} patients here, {permit.least_owners} owners of hospitals"),
            ("From", day(permit.starts)),
            ("Until", day(permit.ends)),
        )

    def _checks(self, tx: Connection, permit: Permit) -> tuple[Check, ...]:
        """The evidence. The policies are asked as they stand now, and this is not kept as a decision: nobody acts on it."""
        asked = gathered.consider(tx, permit)
        ask = Ask(action=asked.ACTION, principal=HUB, resource=Entity("Study", permit.study), facts=asked)
        decision = decide(self._site.gate.desk.policies, ask)
        why = decision.reasons[0]
        found = [
            Check(kind="good", text=f"Your policies allow it (policy {why.policy}): {why.because}.")
            if decision.allowed
            else Check(
                kind="no",
                text=f"Your policies refuse it now (policy {why.policy}): {why.because}. Would pass: {why.to_change}.",
            ),
            Check(
                kind="good",
                text=f"What leaves: masked sums over all hospitals, for {permit.questions} questions at most. No record leaves.",
            ),
        ]
        privacy = permit.privacy
        found.append(
            Check(kind="note", text="No noise is added: the sums of all hospitals together come out exactly.")
            if privacy is None
            else Check(
                kind="good",
                text=f"Privacy budget of a patient: epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, over all questions.",
            )
        )
        found.append(
            Check(kind="note", text="Counts over all hospitals are told exactly.")
            if permit.counts_to == 1
            else Check(kind="good", text=f"Counts over all hospitals are told to the nearest {permit.counts_to}.")
        )
        if permit.code is not None:
            there = permits.bundle_of(tx, permit) is not None
            found.append(
                Check(
                    kind="note" if there else "no",
                    text=f"Code of the applicant’s runs here, in the sandbox. SHA-256 {permit.code}"
                    + ("." if there else ": it has not come yet."),
                )
            )
        missing = parts.missing(self._site.ports.walls())
        if missing:
            found.append(Check(kind="no", text=f"Walls of the sandbox are missing here: {', '.join(sorted(missing))}."))
        found.append(Check(kind="note", text="Machines are not attested. The permit says so."))
        return tuple(found)


NO_REASON: Final = "Choose a reason, or write one in your own words"


def in_words(rule: str) -> str:
    """Consent's rule without what names one patient's statement."""
    if rule.startswith("opt-out"):
        return "said no"
    if rule.startswith("consent"):
        return "their consent denies it, or is unclear"
    return {"no consent": "no consent that covers this", "unknown purpose": "the purpose is not known"}.get(rule, rule)


def _row(tx: Connection, name: str) -> RowMapping:
    """Raises PermitNotHere."""
    found = next((row for row in permits.rows(tx) if row["permit"] == name), None)
    if found is None:
        raise permits.PermitNotHere(name)
    return found


def _headline(state: str, asked_by: str, title: str, patients: int) -> str:
    match state:
        case "waiting":
            return f"{asked_by} asks for “{title}”, from {patients} of our patients."
        case "signed":
            return f"You signed “{title}”. It begins when every hospital has signed."
        case "valid":
            return f"“{title}” may use {patients} of our patients today."
        case "refused":
            return f"“{title}” was refused. None of our patients is used."
        case _:
            return f"“{title}” has ended. None of our patients is used."


def _change(tx: Connection, row: RowMapping, permit: Permit) -> Change | None:
    """Against the newest permit of this study that was approved here before this one was asked."""
    for other in permits.rows(tx):
        before = permits.signed_of(other)
        approved = other["state"] in {"signed", "valid"} or before.signatures
        if other["study"] == row["study"] and other["at"] < row["at"] and approved:
            lines = tuple(compared(before.permit, permit))
            return Change(
                permit=before.permit.id,
                at=other["at"],
                lines=lines,
                added=sum(line.kind == "added" for line in lines),
                removed=sum(line.kind == "removed" for line in lines),
            )
    return None


def compared(before: Permit, after: Permit) -> list[Line]:
    """What differs between two permits, line by line with one line around it. Their ids differ always, and are left out."""
    found = []
    for line in list(unified_diff(_lines(before), _lines(after), n=1, lineterm=""))[2:]:
        if not line.startswith("@@"):
            kind = {"+": "added", "-": "removed"}.get(line[0], "same")
            found.append(Line(kind=kind, text=line[1:]))
    return found


def _lines(permit: Permit) -> list[str]:
    found = []
    for name, value in msgspec.to_builtins(permit).items():
        if name in {"id", "type"}:
            continue
        if name in {"starts", "ends"}:
            found.append(f"{name}: {iso(value)}")
        elif isinstance(value, list | tuple):
            found.extend(f"{name}: {_told(one)}" for one in value)
        else:
            found.append(f"{name}: {_told(value)}")
    return found


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return "none" if value is None else str(value)


def _back(form: dict[str, str]) -> str:
    """The page that the button stood on."""
    said = form.get("back", "")
    return said if _PAGE.fullmatch(said) else "/officer"


def _sentence(said: str) -> str:
    return said[:1].upper() + said[1:] + "."
