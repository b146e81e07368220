"""Routes of people's programs: catalogue, applications, permits, runs, log. Every one is decided by the gate."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub import bundles, proposals, reports
from paroma.hub.gate import as_entity, as_person
from paroma.hub.lifecycle import Done
from paroma.hub.parts import Hub
from paroma.hub.reports import Owner
from paroma.hub.runs import Asked, RunUnknown
from paroma.kernel import canonical
from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import RunId, StudyId
from paroma.learn.flower.contribution import MOST_BUNDLE
from paroma.learn.runs.question import MOST_QUERY, Query
from paroma.learn.runs.report import RunReport
from paroma.trust.audit.cosignatures import quorum
from paroma.trust.audit.notes import NoteKey
from paroma.trust.audit.tiles import CHECKPOINT
from paroma.trust.channel.exchange import Did
from paroma.trust.channel.heads import cosigning_key
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, PersonUnknown
from paroma.trust.permit import permit as permits
from paroma.trust.permit.wish import Standing, Wish
from paroma.trust.policy import facts
from paroma.trust.policy.facts import Entity
from paroma.web.kit.http import as_json, body_of, count_of, json_of
from paroma.web.kit.sign_in import SignIn

T = TypeVar("T")
Owned = facts.ReadApplication | facts.RevokePermit | facts.ReadRun | facts.StopRun
LONGEST_WAIT = 25.0  # s
MOST_REASON = 4_096  # bytes
LOOK_SECONDS = 0.5  # how often a waiting request looks again unasked: another hub may share the database
OFTEN_SECONDS = 0.1  # a run that goes on is not told more often to one who waits


class OpenRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/runs."""

    permit: str
    query: Query


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of what shuts somebody off. It stands in the log."""

    reason: str


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/permits/{permit}/revoke. The applicant owes nobody a reason."""

    reason: str = ""


class Act(Protocol):
    """Something that is done to a member."""

    def __call__(self, tx: Connection, site: str, /, *, by: str, reason: str) -> Done:
        """Do it. Raises Refused, BadInput."""
        ...


class Held(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set and the titles of the sites that hold records of it."""

    data_set: object
    sites: tuple[str, ...]


class LogKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the federation log is checked with: its key, its members' cosignature keys, and how many make a quorum."""

    origin: str
    vkey: str
    witnesses: dict[str, str]
    titles: dict[str, str]
    quorum: int


class PeopleRoutes:
    """The routes of people's programs."""

    def __init__(self, hub: Hub, sign_in: SignIn) -> None:
        self._hub = hub
        self._sign_in = sign_in

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/api/members", self.members, methods=["GET"]),
            Route("/api/data-sets", self.data_sets, methods=["GET"]),
            Route("/api/applications", self.applications, methods=["GET"]),
            Route("/api/applications", self.apply, methods=["POST"]),
            Route("/api/applications/{permit}", self.application, methods=["GET"]),
            Route("/api/bundles", self.bring_app, methods=["POST"]),
            Route("/api/members/{site}/quarantine", self.quarantine, methods=["POST"]),
            Route("/api/members/{site}/release", self.release, methods=["POST"]),
            Route("/api/members/{site}/remove", self.remove, methods=["POST"]),
            Route("/api/people/{person}/revoke", self.revoke_person, methods=["POST"]),
            Route("/api/keys/{key}/revoke", self.revoke_key, methods=["POST"]),
            Route("/api/permits/{permit}/revoke", self.revoke, methods=["POST"]),
            Route("/api/runs", self.runs, methods=["GET"]),
            Route("/api/runs", self.open_run, methods=["POST"]),
            Route("/api/runs/{run}", self.run, methods=["GET"]),
            Route("/api/runs/{run}/stop", self.stop_run, methods=["POST"]),
            Route("/log-keys", self.log_keys, methods=["GET"]),
            Route("/log/{path:path}", self.log, methods=["GET"]),
        ]

    async def members(self, request: Request) -> Response:
        """Who belongs to the federation, who is online, and when each was seen last."""
        await self._allowed(request, facts.ReadMembers)
        found = await self._hub.store.read(members.members)
        now = self._hub.ports.clock.now()
        return as_json([reports.seen(m, self._hub.presence.seen(m.site), now) for m in found])

    async def quarantine(self, request: Request) -> Response:
        """Isolate a member: its requests are cut, no run waits for it."""
        return await self._on_member(request, facts.Quarantine, self._hub.lifecycle.quarantine)

    async def release(self, request: Request) -> Response:
        """Let a member in again that was isolated."""
        return await self._on_member(request, facts.Release, self._hub.lifecycle.release)

    async def remove(self, request: Request) -> Response:
        """End a membership for good."""
        return await self._on_member(request, facts.Remove, self._hub.lifecycle.remove)

    async def _on_member(self, request: Request, kind: type[facts.Person], act: Act) -> Response:
        site = request.path_params["site"]
        person = await self._allowed(request, kind, resource=Entity("Site", site))
        reason = (await json_of(request, Reason, MOST_REASON)).reason
        return await self._end(lambda tx: act(tx, site, by=person.person, reason=reason))

    async def revoke_person(self, request: Request) -> Response:
        """End somebody's key, sessions, tokens and runs."""
        who = request.path_params["person"]
        person = await self._allowed(request, facts.RevokePerson, resource=Entity("Person", who))
        reason = (await json_of(request, Reason, MOST_REASON)).reason
        return await self._end(lambda tx: self._hub.lifecycle.revoke_person(tx, who, by=person.person, reason=reason))

    async def revoke_key(self, request: Request) -> Response:
        """Shut off whoever holds this key."""
        key = request.path_params["key"]
        person = await self._allowed(request, facts.RevokePerson, resource=Entity("Person", key))
        await self._allowed(request, facts.Quarantine, resource=Entity("Site", key))
        reason = (await json_of(request, Reason, MOST_REASON)).reason
        return await self._end(lambda tx: self._hub.lifecycle.revoke_key(tx, key, by=person.person, reason=reason))

    async def _end(self, act: Callable[[Connection], Done]) -> Response:
        """Do what ends something; it holds for whatever is open before this answers."""
        done = await self._hub.store.write(act)
        await self._hub.catch_up()
        self._hub.ring(done.rung)
        self._hub.runs.tell()
        return as_json(done.ended)

    async def data_sets(self, request: Request) -> Response:
        """The catalogue: descriptions and titles, no count."""
        await self._allowed(request, facts.ReadCatalogue)
        found = await self._hub.store.read(
            lambda tx: (proposals.data_sets(tx), {m.site: m.title for m in members.members(tx)})
        )
        held, titles = found
        return as_json([Held(data_set=d, sites=tuple(titles.get(s, s) for s in sites)) for d, sites in held])

    async def apply(self, request: Request) -> Response:
        """Submit an application: every site that offers the data set is asked."""
        hub = self._hub
        person = await self._sign_in.person(request)  # before the body: a stranger's is not even read
        wish = await json_of(request, Wish)
        asked = facts.Apply(**as_person(person), purpose=wish.purpose)  # type: ignore[arg-type]
        await hub.gate.require(as_entity(person), asked, Entity("Study", wish.study or "new"))
        permit, rung = await hub.store.write(
            lambda tx: proposals.apply(
                tx,
                wish,
                by=person.person,
                asked_by=person.name,
                log=hub.log,
                post=hub.post,
                randomness=hub.ports.randomness,
            )
        )
        hub.ring(rung)
        return as_json(await hub.store.read(lambda tx: proposals.standing(tx, permit.id)), 201)

    async def bring_app(self, request: Request) -> Response:
        """Keep the bundle of a Flower app; its digest, which an application then names."""
        person = await self._allowed(
            request, facts.Apply, resource=Entity("Study", "new"), purpose="scientific-research"
        )
        data, hub = await body_of(request, MOST_BUNDLE + 1), self._hub
        now = hub.ports.clock.now()
        code = await hub.store.write(lambda tx: bundles.keep(tx, data, by=person.person, log=hub.log, now=now))
        return as_json({"code": code}, 201)

    async def applications(self, request: Request) -> Response:
        """All applications that this person may see."""
        person = await self._sign_in.person(request)
        found = await self._hub.store.read(proposals.standings)
        seen = [one for one in found if self._may_read(person, one)]
        return as_json(seen)

    async def application(self, request: Request) -> Response:
        """One application; with `wait` and `unless`, once its state is another."""
        person = await self._sign_in.person(request)
        name, unless = request.path_params["permit"], request.query_params.get("unless")
        await self._see_permit(person, name)

        async def look() -> Standing | None:
            found = await self._hub.store.read(lambda tx: proposals.standing(tx, name))
            return None if found.state == unless else found

        found = await self._awaited(request, person, look)
        if found is None:
            found = await self._hub.store.read(lambda tx: proposals.standing(tx, name))
        return as_json(found)

    async def revoke(self, request: Request) -> Response:
        """End a permit before its time, and its runs with it."""
        hub, name = self._hub, request.path_params["permit"]
        person = await self._sign_in.person(request)
        said = canonical.decode_as(await body_of(request, MOST_REASON) or b"{}", Ending)
        owner = await hub.store.read(lambda tx: reports.permit_owner(tx, name))
        await self._see(person, facts.RevokePermit, owner, proposals.PermitUnknown(name))
        done = await hub.store.write(
            lambda tx: hub.lifecycle.revoke_permit(tx, name, by=person.person, reason=said.reason)
        )
        hub.ring(done.rung)
        hub.runs.tell()
        return as_json(await hub.store.read(lambda tx: proposals.standing(tx, name)))

    async def open_run(self, request: Request) -> Response:
        """Open a run under a permit."""
        hub = self._hub
        person = await self._sign_in.person(request)
        wish = await json_of(request, OpenRun, MOST_QUERY)
        await self._see_permit(person, wish.permit)
        signed, state, data_set, here = await hub.store.read(lambda tx: reports.before_run(tx, wish.permit))
        holds = state == "valid" and await hub.store.read(lambda tx: reports.still_signed(tx, signed))
        permit = signed.permit
        asked_before = await hub.store.read(lambda tx: reports.questions_asked(tx, permit.id))
        await hub.gate.require(
            as_entity(person),
            facts.OpenRun(
                **as_person(person),  # type: ignore[arg-type]
                is_applicant=permit.applicant == person.person,
                permit_state=state,
                permit_signed=holds,
                purpose=permit.purpose,
                now=int(hub.ports.clock.now()),
                starts=int(-(-permit.starts // 1)),
                ends=int(permit.ends),
                questions_left=permit.questions - asked_before,
                sites_online=len(here),
                least_sites=max(permits.threshold(len(permit.participants)), permit.least_owners + permit.colluders),
            ),
            Entity("Study", permit.study),
        )
        asked = Asked(signed=signed, query=wish.query, data_set=data_set, by=person.person)

        def opened(tx: Connection) -> tuple[RunId, Did]:
            run, did = hub.runs.open(tx, asked)
            for site in permits.sites(permit):
                if site not in here:  # nobody waits for it, until something comes from it
                    did |= Did(posted_to=frozenset(hub.runs.away(tx, site)))
            return run, did

        run, did = await hub.store.write(opened)
        hub.after(did)
        return as_json(await self._report(run), 201)

    async def runs(self, request: Request) -> Response:
        """The runs that this person may see, newest first."""
        person = await self._sign_in.person(request)
        found = await self._hub.store.read(reports.runs)
        reported = [await self._report(run) for run, applicant in found if self._may_read_run(person, applicant)]
        return as_json(reported)

    async def run(self, request: Request) -> Response:
        """One run; with `wait` and `after`, once its revision is greater."""
        run = RunId(request.path_params["run"])
        person = await self._sign_in.person(request)
        await self.allowed_run(person, run)
        after = count_of(request.query_params.get("after", ""), 1 << 53)
        clock = self._hub.ports.clock
        began = clock.monotonic()

        async def look() -> RunReport | None:
            revision, ended = await self._hub.store.read(lambda tx: reports.revision(tx, run))
            early = clock.monotonic() < began + OFTEN_SECONDS
            if after is None or ended or (revision > after and not early):
                return await self._report(run)
            return None

        return as_json(await self._awaited(request, person, look) or await self._report(run))

    async def allowed_run(self, person: Person, run: RunId) -> None:
        """Whether this person may read this run. Raises RunUnknown, also for a run of somebody else."""
        await self._see(
            person, facts.ReadRun, await self._hub.store.read(lambda tx: reports.owner(tx, run)), RunUnknown(run)
        )

    async def stop_run(self, request: Request) -> Response:
        """End a run before its time."""
        run, hub = RunId(request.path_params["run"]), self._hub
        person = await self._sign_in.person(request)
        owner = await hub.store.read(lambda tx: reports.owner(tx, run))
        await self._see(person, facts.ReadRun, owner, RunUnknown(run))
        await self._see(person, facts.StopRun, owner, None)
        hub.after(await hub.store.write(lambda tx: hub.runs.stop(tx, run, f"stopped by {person.name}")))
        return as_json(await self._report(run))

    async def log_keys(self, request: Request) -> Response:
        """What to check the federation log with."""
        await self._allowed(request, facts.ReadLog)
        found = [m for m in await self._hub.store.read(members.members) if m.status in members.TAKES_PART]
        keys = {m.site: cosigning_key(NoteKey.parse(m.log_vkey)).vkey for m in found}
        return as_json(
            LogKeys(
                origin=self._hub.signer.origin,
                vkey=self._hub.signer.vkey,
                witnesses={str(site): vkey for site, vkey in keys.items()},
                titles={m.site: m.title for m in found},
                quorum=quorum(len(found), 0) if found else 1,
            )
        )

    async def log(self, request: Request) -> Response:
        """The federation log as files of C2SP tlog-tiles; `checkpoint` with the cosignatures that there are."""
        path = request.path_params["path"]
        if self._sign_in.principal(request).role != "site":
            await self._allowed(request, facts.ReadLog)
        found = await self._hub.store.read(lambda tx: reports.log_file(tx, path))
        kind = "text/plain; charset=utf-8" if path == CHECKPOINT else "application/octet-stream"
        return Response(found, media_type=kind)

    async def _report(self, run: RunId) -> RunReport:
        connected = self._hub.parked.sites()
        return await self._hub.store.read(lambda tx: reports.report(tx, run, connected))

    async def allowed(self, request: Request, kind: type[facts.Person]) -> Person:
        """Whoever asks, if they may do this in the federation. Raises Refused, and logs it."""
        return await self._allowed(request, kind)

    async def _allowed(
        self, request: Request, kind: type[facts.Person], *, resource: Entity | None = None, **more: object
    ) -> Person:
        person = await self._sign_in.person(request)
        asked = kind(**as_person(person), **more)  # type: ignore[arg-type]  # checked by the facts themselves
        where = resource or Entity("Federation", "federation")
        await self._hub.gate.require(as_entity(person), asked, where)
        return person

    async def allowed_permit(self, person: Person, permit: str) -> None:
        """Whether this person may read this application. Raises PermitUnknown, also for one of somebody else."""
        await self._see_permit(person, permit)

    def may_read(self, person: Person, one: Standing) -> bool:
        """Whether this person may read this application; for lists, where what may not be read is left out."""
        return self._may_read(person, one)

    async def _see_permit(self, person: Person, permit: str) -> None:
        """Whether this person may read this application. Raises PermitUnknown, also for one of somebody else."""
        owner = await self._hub.store.read(lambda tx: reports.permit_owner(tx, permit))
        await self._see(person, facts.ReadApplication, owner, proposals.PermitUnknown(permit))

    async def _see(self, person: Person, kind: type[Owned], owner: Owner | None, unknown: ParomaError | None) -> None:
        """Decide an act on what somebody owns. Whatever is refused is `unknown`: what is not there (owner None) and what is
        somebody else's get the same answer and the same line in the log. unknown None: they see it, so why is told.
        """
        theirs = owner is not None and owner.applicant == person.person
        where = Entity("Study", owner.study if owner is not None and theirs else "any")
        asked = kind(**as_person(person), is_applicant=theirs)  # type: ignore[arg-type]
        try:
            await self._hub.gate.require(as_entity(person), asked, where)
        except Refused as why:
            raise unknown or why from None
        if owner is None and unknown is not None:
            raise unknown

    def _may_read(self, person: Person, one: Standing) -> bool:
        asked = facts.ReadApplication(**as_person(person), is_applicant=one.permit.applicant == person.person)  # type: ignore[arg-type]
        return self._hub.gate.decide(as_entity(person), asked, Entity("Study", one.permit.study)).allowed

    def _may_read_run(self, person: Person, applicant: str) -> bool:
        asked = facts.ReadRun(**as_person(person), is_applicant=applicant == person.person)  # type: ignore[arg-type]
        return self._hub.gate.decide(as_entity(person), asked, Entity("Study", StudyId("any"))).allowed

    async def _awaited(self, request: Request, person: Person, look: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `look` finds within the time that the request gives; asked again whenever people see something new.

        Raises PersonUnknown once whoever waits is revoked: nothing more is told to them.
        """
        asked = count_of(request.query_params.get("wait", "0").partition(".")[0], 1 << 20) or 0
        clock = self._hub.ports.clock
        ends = clock.monotonic() + min(float(asked), LONGEST_WAIT)
        epoch = self._hub.verifier.epoch
        while True:
            changed = self._hub.runs.changed  # before looking: what comes meanwhile is not missed
            found = await look()
            left = ends - clock.monotonic()
            over = found is not None or left <= 0
            if over or self._hub.verifier.epoch != epoch:
                epoch = self._hub.verifier.epoch
                if (await self._hub.store.read(lambda tx: people.person(tx, person.person))).revoked is not None:
                    raise PersonUnknown
            if over:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await changed.wait()
