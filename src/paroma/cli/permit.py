"""`paroma permit`: what was allowed, and its end."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import iso
from paroma.sdk.connection import connect
from paroma.trust.permit.permit import digest
from paroma.trust.permit.wish import Standing

APP = show.app("List, show and revoke permits.")
PermitName = Annotated[str, typer.Argument(help="The permit's id.")]


@APP.command("list")
def list_(profile: ProfileName = None, *, json: Json = False) -> None:
    """Applications and permits, newest first."""
    with connect(profile) as here:
        found = here.standings()
    rows = [(one.permit.title, one.state, iso(one.permit.ends)[:10], one.permit.id) for one in found]
    text = show.table(("study", "state", "ends", "permit"), rows, none="there is no application yet")
    show.done({"permits": found}, show.paged(text, "paroma study open"), json=json)


@APP.command("show")
def show_(name: PermitName, profile: ProfileName = None, *, json: Json = False) -> None:
    """One permit: what it allows, how it protects, who signed."""
    with connect(profile) as here:
        found = here.standing(name)
    _show(found, json=json)


@APP.command()
def revoke(
    name: PermitName,
    reason: Annotated[str, typer.Option(help="Why, in a sentence: it stands in the federation log.")] = "",
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """End a permit before its time. All its runs stop at once."""
    with connect(profile) as here:
        found = here.revoke(name, reason)
    _show(found, json=json)


def _show(one: Standing, *, json: bool) -> None:
    permit, budget = one.permit, one.permit.privacy
    protection = (
        "none beyond the secure sum: the hub sees exact totals"
        if budget is None
        else f"epsilon {budget.epsilon:g} at delta {budget.delta:g} over {budget.questions} questions"
    )
    lines = [
        ("permit", f"{permit.id}, {one.state}"),
        ("study", f"{permit.title} ({permit.study})"),
        ("applicant", one.asked_by),
        ("purpose", permit.purpose),
        ("data set", permit.data_set),
        ("features", ", ".join(permit.features)),
        ("algorithms", ", ".join(permit.algorithms)),
        ("code", permit.code or ""),
        ("least", f"{permit.least_patients} patients, {permit.least_owners} owners"),
        ("counts", "exact" if permit.counts_to == 1 else f"to the nearest {permit.counts_to}"),
        ("tolerates", f"{permit.colluders} colluders, {permit.dropouts} dropouts"),
        ("privacy", protection),
        ("questions", f"{permit.questions}, {permit.attempts} attempts at each"),
        ("holds", f"{iso(permit.starts)} to {iso(permit.ends)}"),
        ("signed", ", ".join(one.signed)),
        ("waits for", ", ".join(one.waiting) if one.state == "submitted" else ""),
        *(
            ("refused by" if no.site is None else "ended by", f"{no.title}: {no.because}; {no.to_change}")
            for no in one.refusals
        ),
        ("digest", digest(permit)),
    ]
    text = show.paged(show.facts(lines), f"paroma study open {permit.id}")
    show.done({"standing": one, "digest": digest(permit)}, text, json=json)
