"""The pages of the catalogue. What is looked for stands in the address; the same as CSV. Descriptions only, no count of people."""

import csv
import io
from typing import Final, get_args
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.data.catalogue.data_set import DataSet, Feature, Special
from paroma.hub import proposals
from paroma.hub.api.visits import Visits
from paroma.hub.gate import as_entity, as_person
from paroma.hub.parts import Hub
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import SiteId, printable
from paroma.kernel.release import VERSION
from paroma.trust.federation import members
from paroma.trust.identity.people import Person
from paroma.trust.policy import facts, purposes
from paroma.trust.policy.decide import Ask, decide
from paroma.trust.policy.facts import Entity
from paroma.web.console.catalogue import DataSetView, No, Sought, Variable, catalogue_page, data_set_page
from paroma.web.kit.http import page

KINDS: Final = ("number", "category", "flag", *(kind for kind in get_args(Special) if kind))
PURPOSES: Final = purposes.ALLOWED | purposes.PROHIBITED
LONGEST_TEXT: Final = 100  # characters


class CataloguePages:
    """The routes of the catalogue."""

    def __init__(self, hub: Hub, visits: Visits) -> None:
        self._hub = hub
        self._visits = visits

    def routes(self) -> list[Route]:
        """The routes."""
        read = facts.ReadCatalogue
        return [
            Route("/catalogue", self._visits.page(self.catalogue, read), methods=["GET"]),
            Route("/catalogue.csv", self._visits.page(self.table, read), methods=["GET"]),
            Route("/data-sets/{data_set}", self._visits.page(self.data_set, read), methods=["GET"]),
        ]

    async def catalogue(self, request: Request, person: Person) -> Response:
        """Which data sets there are: by text, purpose and kind of variable."""
        sought = sought_in(request)
        no = self._no(person, sought.purpose) if sought.purpose else None
        rows = () if no else await self._found(sought)
        made = catalogue_page(
            rows,
            sought,
            no,
            purposes=tuple(PURPOSES.items()),
            kinds=KINDS,
            federation=self._hub.settings.name,
            person=person.name,
            release=VERSION,
        )
        return page(made)

    async def table(self, request: Request, person: Person) -> Response:
        """The same as CSV: a line for each variable."""
        sought = sought_in(request)
        rows = () if sought.purpose and self._no(person, sought.purpose) else await self._found(sought)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(
            ("data_set", "title", "licence", "hospitals", "variable", "meaning", "kind", "values", "special")
        )
        for row in rows:
            held = "; ".join(row.hospitals)
            for one in row.variables:
                line = (row.name, row.title, row.licence, held, one.name, one.title, one.kind, one.shape, one.special)
                writer.writerow([_plain(cell) for cell in line])
        name = {"content-disposition": 'attachment; filename="catalogue.csv"'}
        return Response(out.getvalue(), headers=name, media_type="text/csv; charset=utf-8")

    async def data_set(self, request: Request, person: Person) -> Response:
        """One data set and its variables."""
        name = request.path_params["data_set"]
        found = next((row for row in await self._all() if name in {row.data_set, row.name}), None)
        if found is None:
            raise proposals.DataSetUnknown(name)
        made = data_set_page(found, federation=self._hub.settings.name, person=person.name, release=VERSION)
        return page(made)

    async def _all(self) -> tuple[DataSetView, ...]:
        def look(tx: Connection) -> tuple[DataSetView, ...]:
            titles = {m.site: m.title for m in members.members(tx)}
            return tuple(view_of(described, sites, titles) for described, sites in proposals.data_sets(tx))

        return await self._hub.store.read(look)

    async def _found(self, sought: Sought) -> tuple[DataSetView, ...]:
        return tuple(row for row in await self._all() if fits(row, sought))

    def _no(self, person: Person, purpose: str) -> No | None:
        """Why this person may not apply for this purpose, by the policies in force; nobody applies, so nothing is kept of it."""
        asked = facts.Apply(**as_person(person), purpose=purpose)  # type: ignore[arg-type]
        ask = Ask(action=asked.ACTION, principal=as_entity(person), resource=Entity("Study", "new"), facts=asked)
        decision = decide(self._hub.gate.desk.policies, ask)
        if decision.allowed:
            return None
        why = decision.reasons[0]
        return No(policy=why.policy, because=why.because, to_change=why.to_change)


def sought_in(request: Request) -> Sought:
    """What the address asks for. Raises BadInput."""
    asked = request.query_params
    text, purpose, kind = asked.get("q", "").strip(), asked.get("purpose", ""), asked.get("kind", "")
    if len(text) > LONGEST_TEXT:
        raise BadInput(f"the search is longer than {LONGEST_TEXT} characters", do="search for a word or two")
    if purpose and purpose not in PURPOSES:
        raise BadInput(f"there is no purpose `{printable(purpose)}`", do=f"name one of {', '.join(purposes.ALLOWED)}")
    if kind and kind not in KINDS:
        raise BadInput(f"there is no kind `{printable(kind)}` of variable", do=f"name one of {', '.join(KINDS)}")
    said = {name: value for name, value in (("q", text), ("purpose", purpose), ("kind", kind)) if value}
    return Sought(text=text, purpose=purpose, kind=kind, query=f"?{urlencode(said)}" if said else "")


def fits(row: DataSetView, sought: Sought) -> bool:
    """Whether every word stands somewhere in the description, and a variable is of the kind."""
    told = " ".join(
        (row.name, row.title, row.description, *row.hospitals, *(f"{v.name} {v.title}" for v in row.variables))
    ).casefold()
    kinds = {v.kind for v in row.variables} | {v.special for v in row.variables}
    return all(word in told for word in sought.text.casefold().split()) and (not sought.kind or sought.kind in kinds)


def view_of(described: DataSet, sites: tuple[SiteId, ...], titles: dict[SiteId, str]) -> DataSetView:
    """A data set as its page tells it."""
    return DataSetView(
        data_set=described.id,
        name=described.name,
        title=described.title,
        description=described.description,
        licence=described.licence,
        hospitals=tuple(sorted(titles.get(site, site) for site in sites)),
        variables=tuple(
            Variable(name=f.name, title=f.title, kind=f.kind, shape=_shape(f), special=f.special)
            for f in described.features
        ),
        outcome=tuple(f.title for f in described.features if f.outcome),
    )


def _shape(feature: Feature) -> str:
    if feature.kind == "number":
        return f"{feature.low:g} to {feature.high:g} {feature.unit}".strip()
    return ", ".join(level.title for level in feature.levels)


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
