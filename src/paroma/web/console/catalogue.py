"""The pages of the catalogue: which data sets there are, and what one holds. Descriptions only: no record, no count."""

from dataclasses import dataclass

from paroma.web.kit.pages import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A feature as people read it. shape: its range with the unit, or the titles of its levels. special: as in the data set."""

    name: str
    title: str
    kind: str
    shape: str
    special: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetView:
    """A data set, and the titles of the hospitals that hold records of it. outcome: titles of what may be predicted."""

    data_set: str
    name: str
    title: str
    description: str
    licence: str
    hospitals: tuple[str, ...]
    variables: tuple[Variable, ...]
    outcome: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What the address asks for. query: the same as a query string, for links."""

    text: str
    purpose: str
    kind: str
    query: str

    @property
    def anything(self) -> bool:
        """Whether it asks for anything at all."""
        return bool(self.text or self.purpose or self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """Why nothing can be applied for under the chosen purpose: policy, fact, what would pass."""

    policy: str
    because: str
    to_change: str


def catalogue_page(
    rows: tuple[DataSetView, ...],
    sought: Sought,
    no: No | None,
    *,
    purposes: tuple[tuple[str, str], ...],
    kinds: tuple[str, ...],
    federation: str,
    person: str,
    release: str,
) -> str:
    """GET /catalogue. purposes: code and words of those that may be chosen."""
    return render(
        "console/catalogue.html",
        rows=rows,
        sought=sought,
        no=no,
        purposes=purposes,
        kinds=kinds,
        federation=federation,
        person=person,
        release=release,
        refresh=None,
    )


def data_set_page(view: DataSetView, *, federation: str, person: str, release: str) -> str:
    """GET /data-sets/{data_set}"""
    return render(
        "console/data_set.html", view=view, federation=federation, person=person, release=release, refresh=None
    )
