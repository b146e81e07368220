"""The pages of studies and permits: what was applied for, how it stands, what is next. The gate says who sees which."""

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub import proposals, reports
from paroma.hub.api.people import PeopleRoutes
from paroma.hub.api.visits import Visits
from paroma.hub.parts import Hub
from paroma.hub.tables import RUNS
from paroma.kernel.ids import RunId
from paroma.kernel.release import VERSION
from paroma.trust.identity.people import Person
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit
from paroma.trust.permit.wish import Standing
from paroma.trust.policy import purposes
from paroma.web.console.studies import No, PermitView, StudyRow, permit_page, studies_page
from paroma.web.kit.http import page
from paroma.web.kit.pages import day


class StudyPages:
    """The routes of studies and permits."""

    def __init__(self, hub: Hub, people: PeopleRoutes, visits: Visits) -> None:
        self._hub = hub
        self._people = people
        self._visits = visits

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/studies", self._visits.page(self.studies), methods=["GET"]),
            Route("/permits/{permit}", self._visits.page(self.permit), methods=["GET"]),
        ]

    async def studies(self, _request: Request, person: Person) -> Response:
        """The applications and permits that this person may see, newest first."""
        now = self._hub.ports.clock.now()
        found = await self._hub.store.read(proposals.standings)
        rows = tuple(_row(one, now) for one in found if self._people.may_read(person, one))
        made = studies_page(
            rows,
            own=person.role == "scientist",
            federation=self._hub.settings.name,
            person=person.name,
            release=VERSION,
        )
        return page(made)

    async def permit(self, request: Request, person: Person) -> Response:
        """One permit: what it allows, how it protects, who signed, what ran."""
        hub, name = self._hub, request.path_params["permit"]
        await self._people.allowed_permit(person, name)
        connected, now = hub.parked.sites(), hub.ports.clock.now()

        def look(tx: Connection) -> tuple[Standing, tuple[tuple[str, str, float], ...]]:
            ran = tx.execute(select(RUNS.c.run).where(RUNS.c.permit == name).order_by(RUNS.c.opened.desc())).scalars()
            told = [reports.report(tx, RunId(run), connected) for run in ran]
            return proposals.standing(tx, name), tuple((one.run, one.status, one.opened) for one in told)

        standing, runs = await hub.store.read(look)
        view = _view(standing, runs, now, address=f"{hub.settings.url}/permits/{name}")
        return page(permit_page(view, federation=hub.settings.name, person=person.name, release=VERSION))


def state_of(one: Standing, now: float) -> str:
    """The state; `ended` where a valid permit's term is over. now: unix s."""
    return "ended" if one.state == "valid" and now >= one.permit.ends else one.state


def next_step(one: Standing, now: float) -> str:
    """What to do now, in a sentence."""
    match state_of(one, now):
        case "submitted":
            return f"Wait for the officers of {', '.join(one.waiting)}."
        case "valid":
            return f"Ask a question: paroma run statistics --permit {one.permit.id} ..."
        case "refused":
            return "Read why, and apply anew with what would pass."
        case _:
            return "Apply anew, if you need it longer."


def _row(one: Standing, now: float) -> StudyRow:
    return StudyRow(
        permit=one.permit.id,
        study=one.permit.study,
        title=one.permit.title,
        asked_by=one.asked_by,
        state=state_of(one, now),
        signed=len(one.signed),
        asked=len(one.permit.participants),
        ends=one.permit.ends,
        next=next_step(one, now),
    )


def _view(one: Standing, runs: tuple[tuple[str, str, float], ...], now: float, *, address: str) -> PermitView:
    permit = one.permit
    state = state_of(one, now)
    return PermitView(
        permit=permit.id,
        study=permit.study,
        title=permit.title,
        state=state,
        headline=_headline(one, state),
        facts=(
            ("Study", permit.study),
            ("Asked by", one.asked_by),
            ("Purpose", purposes.ALLOWED.get(permit.purpose, permit.purpose)),
            ("Data set", permit.data_set),
            ("Variables", ", ".join(permit.features)),
            ("Methods", ", ".join(permit.algorithms)),
            ("Code", permit.code or "none of the applicant’s"),
            ("Questions", f"{permit.questions} at most, each tried {permit.attempts} times at most"),
            ("Holds", f"from {day(permit.starts)} to {day(permit.ends)}"),
        ),
        protection=_protection(permit),
        digest=permits.digest(permit),
        hospitals=tuple((name, "signed") for name in one.signed) + tuple((name, "waiting") for name in one.waiting),
        refusals=tuple(
            No(hospital=no.title, policy=no.policy, because=no.because, to_change=no.to_change) for no in one.refusals
        ),
        runs=runs,
        next=next_step(one, now),
        address=address,
    )


def _protection(permit: Permit) -> tuple[tuple[str, str], ...]:
    privacy = permit.privacy
    return (
        ("What leaves", "masked sums over all hospitals, no record"),
        ("Least patients", f"{permit.least_patients} behind each figure and at each hospital"),
        ("Least owners", f"{permit.least_owners} in a sum, beside {permit.colluders} that may lie together"),
        ("Noise", "none: the permit asks for exact sums")
        if privacy is None
        else ("Privacy budget", f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, over all questions"),
        ("Counts", "told exactly" if permit.counts_to == 1 else f"told to the nearest {permit.counts_to}"),
        ("Attestation of machines", permit.attestation),
    )


def _headline(one: Standing, state: str) -> str:
    title = f"“{one.permit.title}”"
    match state:
        case "submitted":
            return f"{title} waits for {len(one.waiting)} of {len(one.permit.participants)} signatures."
        case "valid":
            return f"{title} may run until {day(one.permit.ends)}."
        case "refused":
            return f"{title} was refused."
        case "revoked":
            return f"{title} was ended before its time."
        case _:
            return f"{title} ended on {day(one.permit.ends)}."
