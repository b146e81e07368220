"""`paroma study`: from a data set's description to a permit."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json, ProfileName
from paroma.kernel.errors import BadInput
from paroma.sdk.connection import connect
from paroma.sdk.study import Study, privacy
from paroma.trust.permit.permit import OrganisationKind

APP = show.app("Find data sets, apply, see your studies.")
PLACES = {"catalogue": "/catalogue", "studies": "/studies", "runs": "/", "members": "/members", "log": "/timeline"}


@APP.command("list")
def list_(profile: ProfileName = None, *, json: Json = False) -> None:
    """Your studies."""
    with connect(profile) as here:
        found = here.studies()
    rows = [(one.title, one.state, one.id) for one in found]
    value = {"studies": [{"study": one.id, "title": one.title, "state": one.state} for one in found]}
    text = show.table(("study", "state", "id"), rows, none="you have no study yet")
    show.done(value, show.paged(text, "paroma study open"), json=json)


@APP.command("open")
def open_(
    place: Annotated[str, typer.Argument(help="catalogue, studies, runs, members, log, or a permit's id.")] = "studies",
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Print an address that opens a page of the hub in a browser, once, within 15 minutes."""
    to = f"/permits/{place}" if place.startswith("permit-") else PLACES.get(place)
    if to is None:
        raise BadInput("there is no such page", do=f"name one of {', '.join(PLACES)}, or a permit's id")
    with connect(profile) as here:
        url = here.link(to)
    show.done({"url": url}, url, json=json)


@APP.command()
def data(profile: ProfileName = None, *, json: Json = False) -> None:
    """Which data sets there are, with their features."""
    with connect(profile) as here:
        found = here.data_sets()
    text = []
    for held in found:
        one = held.data_set
        rows = [
            (f.name, f.kind, f"{f.low:g} to {f.high:g} {f.unit}".strip() if f.kind == "number" else "", f.title)
            for f in one.features
        ]
        head = f"{one.title} (`{one.name}`, {one.licence}), held by {', '.join(held.sites)}"
        text.append(f"{head}\n{show.table(('feature', 'kind', 'range', 'title'), rows, none='no feature')}")
    said = "\n\n".join(text) or "no site offers a data set yet"
    show.done({"data_sets": found}, show.paged(said, "paroma study open catalogue"), json=json)


@APP.command()
def apply(
    title: Annotated[str, typer.Argument(help="Title of the study.")],
    *,
    data_set: Annotated[str, typer.Option("--data-set", help="Name of the data set.")],
    features: Annotated[str, typer.Option(help="Features, with commas.")],
    benefit: Annotated[str, typer.Option(help="What patients gain, in words that they understand.")],
    purpose: Annotated[str, typer.Option(help="Purpose, such as scientific-research.")] = "scientific-research",
    algorithms: Annotated[str, typer.Option(help="statistics, logistic, flower.")] = "statistics,logistic",
    study: Annotated[str | None, typer.Option(help="Within this study of yours, instead of a new one.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Differential privacy: the permit's whole epsilon.")] = None,
    delta: Annotated[float, typer.Option(help="Its delta.")] = 1e-5,
    clipping_norm: Annotated[float, typer.Option(help="Length at which a patient's contribution is cut.")] = 1.0,
    questions: Annotated[int, typer.Option(help="Most questions in all.")] = 40,
    least_patients: Annotated[int, typer.Option(help="Least patients behind a figure.")] = 10,
    least_owners: Annotated[int, typer.Option(help="Least different owners in a sum.")] = 3,
    counts_to: Annotated[int, typer.Option(help="Counts are told to the nearest multiple of this; 1: exactly.")] = 5,
    colluders: Annotated[int, typer.Option(help="Sites that may lie together.")] = 0,
    dropouts: Annotated[int, typer.Option(help="Sites that may be lost in a round.")] = 1,
    days: Annotated[float, typer.Option(help="How long the permit holds.")] = 365.0,
    code: Annotated[str | None, typer.Option(help="Digest of the Flower app.")] = None,
    organisation: Annotated[str, typer.Option(help="Your organisation; some hospitals ask for it.")] = "unknown",
    organisation_kind: Annotated[
        OrganisationKind, typer.Option(help="university, hospital, public-body, charity or company.")
    ] = "unknown",
    country: Annotated[str, typer.Option(help="Its country, as two letters.")] = "unknown",
    wait: Annotated[float, typer.Option(help="Seconds to wait for the officers.")] = 0.0,
    profile: ProfileName = None,
    json: Json = False,
) -> None:
    """Apply for a permit. Every hospital's officer is asked; a refusal says what would pass."""
    budget = (
        None if epsilon is None else privacy(epsilon, questions=questions, delta=delta, clipping_norm=clipping_norm)
    )
    with connect(profile) as here:
        within = here.study(study) if study is not None else None
        chosen = here.data_set(data_set).id
        ask = within.apply if within is not None else here.apply
        made: Study = ask(
            title=title,
            purpose=purpose,
            data_set=chosen,
            features=_names(features),
            algorithms=_names(algorithms),
            benefit=benefit,
            privacy=budget,
            code=code,
            days=days,
            least_patients=least_patients,
            least_owners=least_owners,
            counts_to=counts_to,
            colluders=colluders,
            dropouts=dropouts,
            questions=questions,
            organisation=organisation,
            organisation_kind=organisation_kind,
            country=country,
        )
        newest = made.standings[0]
        show.say(f"asked {len(newest.permit.participants)} hospitals: permit {newest.permit.id}")
        if wait > 0:
            made.wait(seconds=wait)
    _show(made, json=json)


@APP.command("show")
def show_(
    name: Annotated[str, typer.Argument(help="Title or id of the study.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """One study, with its applications: who signed, who waits, who refused and what would pass."""
    with connect(profile) as here:
        found = here.study(name)
    _show(found, json=json)


def _show(study: Study, *, json: bool) -> None:
    blocks = [f"{study.title} ({study.id})"]
    for one in study.standings:
        lines = [
            ("permit", f"{one.permit.id}, {one.state}"),
            ("purpose", one.permit.purpose),
            ("features", ", ".join(one.permit.features)),
            ("algorithms", ", ".join(one.permit.algorithms)),
            ("signed", ", ".join(one.signed)),
            ("waits for", ", ".join(one.waiting) if one.state == "submitted" else ""),
            *(("refused by", f"{no.title}: {no.because}; {no.to_change}") for no in one.refusals),
        ]
        blocks.append(show.facts(lines))
    value = {"study": study.id, "title": study.title, "state": study.state, "applications": study.standings}
    show.done(value, "\n\n".join(blocks), json=json)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
