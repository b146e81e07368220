"""Whether a disclosed sum is what its members' patients give: added up anew from the plain rows, by the same algorithm.

Under differential privacy the difference must look like the noise that the permit asks for: it is there, and not larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from paroma.data.catalogue.data_set import columns
from paroma.data.cohort.assemble import arrow
from paroma.data.rights import ledger as rights
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId, RunId, SiteId
from paroma.lab import heart
from paroma.lab.simulation import app
from paroma.lab.simulation.founding import FEATURES, Founded
from paroma.lab.simulation.history import History
from paroma.learn.algorithms import worker
from paroma.learn.algorithms.query import Feature
from paroma.learn.dp import bound
from paroma.learn.flower.names import TRAIN
from paroma.learn.runs import messages, question, work as works
from paroma.learn.runs.messages import Member
from paroma.site import permits as desk
from paroma.site.tables import RUNS, SUMS
from paroma.trust.audit.entries import Entry
from paroma.trust.permit.permit import Permit

I64 = npt.NDArray[np.int64]
WIDEST = 10  # standard deviations: noise that is wider was never drawn as the permit says


@dataclass(frozen=True, slots=True)
class Plain:
    """Who was read for a contribution, and their totals, computed anew."""

    patients: tuple[PatientId, ...]
    totals: I64
    permit: Permit


def check_sum(
    founded: Founded, entry: Entry, histories: Mapping[str, History], acknowledged: Mapping[tuple[str, PatientId], int]
) -> list[str]:
    """What is wrong with the sum of a `question-answered` entry of the federation log."""
    said: Mapping[str, Any] = entry.facts
    about, wrong = f"question {said['step']} of {said['run']}", []
    names = {site: name for name, site in founded.sites.items()}
    inside = [names[str(member["site"])] for member in said["members"]]
    members = tuple(Member(site=SiteId(m["site"]), upload=m["upload"]) for m in said["members"])
    voted = messages.sha256(messages.vote_statement(said["entry"], members))
    if len(set(inside)) < 3 or len(set(inside)) != len(inside):  # owners that the permit asks for
        wrong.append(f"{about} is a sum of {inside}")
    plains = []
    for name in inside:
        history = histories[name]
        made = history.of("contribution-made", entry=said["entry"])
        if len(made) != 1:
            return [*wrong, f"{about}: {name} logs {len(made)} contributions to one attempt"]
        plain = history.read(partial(plain_of, made=made[0][1], founded=founded))
        plains.append(plain)
        votes = [place for place, _ in history.of("vote-signed", entry=said["entry"])]
        if not history.of("vote-signed", entry=said["entry"], set=voted):
            wrong.append(f"{about}: {name} is in the sum and never voted for this set")
        for (where, patient), place in acknowledged.items():
            if where == name and patient in plain.patients and (not votes or place < votes[0]):
                wrong.append(f"{about}: {patient} withdrew before the first vote of {name}, and is in the sum")
    total = np.sum([plain.totals for plain in plains], axis=0)
    permit = plains[0].permit
    if permit.privacy is None:
        salts = _salts(said, histories)
        if salts and not any(_digest(salt, total) == said["total"] for salt in salts):
            wrong.append(f"{about}: the sum is not the plain sum of {inside}")
        return wrong
    told = _told(said, histories)
    if told is not None and (why := unlike_noise(told - total, permit, len(inside))):
        wrong.append(f"{about}: {why}")
    return wrong


def plain_of(tx: Connection, *, made: Entry, founded: Founded) -> Plain:
    """The contribution that a site logged. Raises BadInput where this database does not know of it."""
    run, step, attempt = RunId(str(made.facts["run"])), int(str(made.facts["step"])), int(str(made.facts["attempt"]))
    patients = rights.patients_in(tx, run, step, attempt)
    row = tx.execute(select(RUNS).where(RUNS.c.run == run)).mappings().one()
    permit = desk.permit_of(tx, row["permit"])
    described = msgspec.convert(columns(heart.data_set()), tuple[Feature, ...])
    asking = question.asking(question.unpack_query(bytes(row["query"])), described, permit)
    asked = tx.execute(select(SUMS.c.request).where(SUMS.c.run == run, SUMS.c.step == step)).scalar_one()
    names = list(asking.features)
    matrix = np.array([founded.rows[patient] for patient in patients])[:, [FEATURES.index(n) for n in names]]
    alive = b"\xff" * (len(patients) // 8 + 1)
    place = works.Place(
        run=run, site=1, attempt=str(made.facts["entry"]), patients=patients, alive=alive, bundle=b"not run here"
    )
    work = works.work(asking, question.unpack_step(bytes(asked)), place)
    tables = [memoryview(table) for table in (*work.before, arrow(names, matrix), alive, *work.after)]
    reply = (app.train if work.entry == TRAIN else worker.compute)(work.payload, tables)
    return Plain(patients, work.received(reply).totals, permit)


def _told(said: Mapping[str, Any], histories: Mapping[str, History]) -> I64 | None:
    """The sum's own numbers, from any site that was told them."""
    for history in histories.values():
        for store in history.stores:
            salt, total = store.read_now(partial(_closed, run=said["run"], step=said["step"]))
            if messages.sum_digest(salt, total) == said["total"]:
                return np.frombuffer(total, "<i8").astype(np.int64)
    return None


def _salts(said: Mapping[str, Any], histories: Mapping[str, History]) -> set[bytes]:
    """What sites were told that the sum's digest is salted with: empty while none was told the sum."""
    look = partial(_closed, run=said["run"], step=said["step"])
    found = {store.read_now(look)[0] for history in histories.values() for store in history.stores}
    return found - {b""}


def _closed(tx: Connection, *, run: str, step: int) -> tuple[bytes, bytes]:
    """Salt and sum as a site was told them; empty where it was not."""
    row = tx.execute(select(SUMS.c.salt, SUMS.c.total).where(SUMS.c.run == run, SUMS.c.step == step)).one_or_none()
    return (b"", b"") if row is None or row.total is None else (bytes(row.salt), bytes(row.total))


def unlike_noise(noise: I64, permit: Permit, sites: int) -> str:
    """noise: the difference, in steps; its first number counts the patients and carries none."""
    if permit.privacy is None:
        raise BadInput("the permit asks for no noise", do="compare the sums exactly")
    sigma = bound.share(permit, permit.privacy).sigma * sites**0.5
    if noise[0] != 0:
        return "the number of patients is not that of the members' cohorts"
    if not noise[1:].any():
        return "the permit asks for privacy, and there is no noise in the sum"
    if np.abs(noise[1:]).max() > WIDEST * sigma:
        return f"the sum is further from the plain one than {WIDEST} standard deviations of the permit's noise"
    return ""


def _digest(salt: bytes, total: I64) -> str:
    return messages.sum_digest(salt, total.astype("<i8").tobytes())
