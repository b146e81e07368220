"""The hub's pages: the runs, one run, the members; catalogue, studies and log stand in modules of their own.

A page says what its command says; counts are told as everywhere, as the permit says.
"""

import csv
import io
from math import exp

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub import reports
from paroma.hub.api.catalogue_pages import CataloguePages
from paroma.hub.api.people import PeopleRoutes
from paroma.hub.api.study_pages import StudyPages
from paroma.hub.api.timeline_page import TimelinePage
from paroma.hub.api.visits import Visits
from paroma.hub.gate import as_entity, as_person
from paroma.hub.parts import Hub
from paroma.kernel.ids import PersonId, RunId
from paroma.kernel.release import VERSION
from paroma.learn.algorithms.query import Fitted, Judged, Summary, counted
from paroma.learn.flower.messages import TrainedModel
from paroma.learn.runs.report import RunReport
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.identity.people import Person, SessionEnded
from paroma.trust.policy import facts
from paroma.web.console import run as pages
from paroma.web.console.members import Hospital, members_page
from paroma.web.console.run import BudgetLine, Door, Event, Figure, RunView
from paroma.web.kit.charts import Curve, Effect, Forest
from paroma.web.kit.http import page
from paroma.web.kit.pages import spelled
from paroma.web.kit.sign_in import SignIn, closed_for

Z95 = 1.959963984540054  # normal quantile: half width of a 95 % interval in standard errors


class PageRoutes:
    """The routes of pages."""

    def __init__(self, hub: Hub, sign_in: SignIn, people_routes: PeopleRoutes) -> None:
        self._hub = hub
        self._sign_in = sign_in
        self._people = people_routes

    def routes(self) -> list[Route]:
        """The routes."""
        visits = Visits(self._hub, self._sign_in)
        return [
            Route("/", self.home, methods=["GET"]),
            Route("/members", self.members, methods=["GET"]),
            Route("/runs/{run}.csv", self.table, methods=["GET"]),
            Route("/runs/{run}", self.run, methods=["GET"]),
            *CataloguePages(self._hub, visits).routes(),
            *StudyPages(self._hub, self._people, visits).routes(),
            *TimelinePage(self._hub, visits).routes(),
        ]

    async def home(self, request: Request) -> Response:
        """All runs that this person may see."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        found = await self._hub.store.read(reports.runs)
        rows = []
        for run, applicant in found:
            if person.role != "scientist" or applicant == person.person:
                await self._people.allowed_run(person, run)
                report = await self._report(run)
                rows.append((report.run, report.title, report.status, report.opened))
        return page(
            pages.runs_page(tuple(rows), federation=self._hub.settings.name, person=person.name, release=VERSION)
        )

    async def members(self, request: Request) -> Response:
        """Who belongs to the federation, who is online, and when each was seen last."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        hub = self._hub
        await hub.gate.require(as_entity(person), facts.ReadMembers(**as_person(person)))  # type: ignore[arg-type]
        now = hub.ports.clock.now()
        found = await hub.store.read(members.members)
        rows = tuple(
            Hospital(name=one.title, owner=one.owner, status=one.status, seen=_seen(one.seen), site=one.site)
            for one in (reports.seen(m, hub.presence.seen(m.site), now) for m in found)
        )
        commands = person.role == "operator"
        shown = members_page(rows, federation=hub.settings.name, person=person.name, release=VERSION, commands=commands)
        return page(shown)

    async def run(self, request: Request) -> Response:
        """One run."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        run = RunId(request.path_params["run"])
        await self._people.allowed_run(person, run)
        view = view_of(await self._report(run))
        return page(pages.run_page(view, federation=self._hub.settings.name, person=person.name, release=VERSION))

    async def table(self, request: Request) -> Response:
        """The figures of a run as CSV."""
        try:
            person = await self._person(request)
        except SessionEnded as error:
            return closed_for(self._sign_in, error)
        run = RunId(request.path_params["run"])
        await self._people.allowed_run(person, run)
        report = await self._report(run)
        out = io.StringIO()
        writer = csv.writer(out)
        head, rows = figures(report)
        if rows:
            writer.writerow(head)
            writer.writerows((row.name, *row.values) for row in rows)
        else:
            writer.writerow(("round", report.measure or "answered at"))
            writer.writerows((p.step, p.value if p.value is not None else p.at) for p in report.progress)
        name = {"content-disposition": f'attachment; filename="{run}.csv"'}
        return Response(out.getvalue(), headers=name, media_type="text/csv; charset=utf-8")

    async def _person(self, request: Request) -> Person:
        session = await self._sign_in.session(request)
        return await self._hub.store.read(lambda tx: people.person(tx, PersonId(session.subject)))

    async def _report(self, run: RunId) -> RunReport:
        connected = self._hub.parked.sites()
        return await self._hub.store.read(lambda tx: reports.report(tx, run, connected))


def _seen(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for least, size, unit in (
        (172_800, 86_400, "days"),
        (7_200, 3_600, "hours"),
        (120, 60, "minutes"),
        (1, 1, "seconds"),
    ):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit} ago"
    return "now"


def view_of(report: RunReport) -> RunView:
    """What the page says of a run: the finding first."""
    head, rows = figures(report)
    values = tuple(p.value for p in report.progress if p.value is not None)
    curve = (
        Curve(
            title=report.measure,
            description=f"{report.measure} in each of {len(values)} rounds, from {values[0]:.3g} to {values[-1]:.3g}",
            unit=report.measure,
            values=values,
            rounds=report.steps if report.private else len(values) + (report.status == "running"),
            ident="curve",
        )
        if len(values) > 1
        else None
    )
    effects = _effects(report.result) if isinstance(report.result, Fitted) else ()
    largest = max(effects, key=lambda e: max(e.ratio, 1 / e.ratio), default=None)
    budget = None
    if report.epsilon is not None and report.most_epsilon is not None and report.delta is not None:
        spent = min(report.epsilon, report.most_epsilon)
        budget = BudgetLine(spent=spent, held=report.most_epsilon - spent, most=report.most_epsilon, delta=report.delta)
    return RunView(
        run=report.run,
        study=report.title,
        status=report.status,
        started=report.opened,
        headline=_headline(report),
        curve=curve,
        curve_finding=_curve_finding(values, report.measure),
        forest=Forest(
            title="Odds ratios with 95 % intervals",
            description="; ".join(f"{e.name} {e.ratio:.2f}" for e in effects),
            effects=effects,
            ident="odds",
        )
        if effects
        else None,
        forest_finding=f"{largest.name} multiplies the odds by {largest.ratio:.2f}" if largest else "",
        table_head=head,
        table=rows,
        table_finding=_table_finding(report),
        numbers_each_round=report.numbers,
        rounds_done=len(report.progress),
        noise="shared by the hospitals, added before the sum"
        if report.private
        else "none: the permit asks for exact sums",
        budget=budget,
        doors=tuple(Door(name=s.title, status="online" if s.online else "offline") for s in report.sites),
        least_owners=report.least_owners,
        events=tuple(
            Event(what=s.what, at=s.at, first=place == 0) for place, s in enumerate(reversed(report.story[-6:]))
        ),
        entries=(report.proof.first, report.proof.last) if report.proof and report.proof.cosigned else None,
        cosigned_by=report.proof.cosigned or 0 if report.proof else 0,
        command=f"paroma run show {report.run}",
        refresh=f"/runs/{report.run}" if report.ended is None else None,
    )


def figures(report: RunReport) -> tuple[tuple[str, ...], tuple[Figure, ...]]:
    """The result as a table: its head and its rows."""
    match report.result:
        case Summary(features=described, counts_to=to):
            return ("Feature", "Mean", "Standard deviation", "People"), tuple(
                Figure(
                    name=one.feature,
                    values=(
                        "-" if one.mean is None else f"{one.mean:.4g}",
                        "-" if one.variance is None else f"{max(one.variance, 0.0) ** 0.5:.4g}",
                        "-" if one.count is None else counted(one.count, to),
                    ),
                )
                for one in described
            )
        case Fitted(terms=terms, raw=raw, raw_errors=errors):
            return ("Term", "Coefficient", "Standard error"), tuple(
                Figure(name=name, values=(f"{b:.6g}", "-" if errors is None else f"{errors[place]:.4g}"))
                for place, (name, b) in enumerate(zip(terms, raw, strict=True))
            )
        case Judged(accuracy=accuracy, auroc=auroc):
            return ("Figure", "Value"), (
                Figure(name="accuracy", values=(f"{accuracy:.3f}",)),
                Figure(name="AUROC", values=(f"{auroc:.3f}",)),
            )
        case TrainedModel(shapes=shapes):
            return ("Array", "Shape"), tuple(
                Figure(name=shape.name, values=(" x ".join(map(str, shape.dims)) or "1",)) for shape in shapes
            )
        case _:
            return (), ()


def _effects(fitted: Fitted) -> tuple[Effect, ...]:
    if fitted.raw_errors is None:
        return ()
    found = []
    for name, b, error in zip(fitted.terms, fitted.raw, fitted.raw_errors, strict=True):
        if name != "intercept" and abs(b) + Z95 * error < 20:  # beyond this a ratio says nothing on a chart
            found.append(Effect(name=name, ratio=exp(b), low=exp(b - Z95 * error), high=exp(b + Z95 * error)))
    return tuple(found)


def _headline(report: RunReport) -> str:
    kept = "No record has left a hospital."
    if report.status == "finished":
        people = "" if report.result is None else counted(report.result.patients, report.result.counts_to)
        return f"{_answer(report)} over {people} people. {kept}"
    if report.status in {"failed", "stopped"}:
        return f"This run ended without an answer: {report.reason}."
    if report.status == "waiting":
        return f"The hospitals are checking the permit. {kept}"
    return (
        f"Round {report.step} of at most {report.steps}. {kept}"
        if report.steps > 1
        else f"The hospitals are computing. {kept}"
    )


def _answer(report: RunReport) -> str:
    match report.result:
        case Summary(features=described):
            return f"{spelled(len(described))} {'feature is' if len(described) == 1 else 'features are'} described"
        case Fitted(converged=True):
            return "The model is fitted"
        case Fitted(spent=spent) if spent is not None:
            return "The model is trained, with privacy noise,"
        case Fitted():
            return "The model had not settled when its rounds were used up,"
        case Judged(auroc=auroc):
            return f"The model ranks a case above a non-case in {100 * auroc:.0f} of 100 pairs,"
        case _:
            return "The answer is there,"


def _curve_finding(values: tuple[float, ...], measure: str) -> str:
    if len(values) < 2 or values[0] <= 0:  # one point is no curve
        return measure
    change = 100 * (1 - values[-1] / values[0])
    return (
        f"The {measure} fell by {change:.0f} % in {len(values)} rounds"
        if change >= 1
        else f"The {measure} stands still"
    )


def _table_finding(report: RunReport) -> str:
    match report.result:
        case Summary(features=described):
            return f"{spelled(len(described))} {'feature' if len(described) == 1 else 'features'} over all hospitals"
        case Judged(auroc=auroc):
            return f"The model ranks a case above a non-case in {100 * auroc:.0f} of 100 pairs"
        case TrainedModel(sha256=digest):
            return f"The trained model, SHA-256 {digest[:12]}"
        case _:
            return "The result"
