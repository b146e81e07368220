"""A Flower app as a question of a run: which permit allows it, what a site's contribution holds, what follows from a sum.

The same at the hub and at every site; imports no flwr. Contribution and Update speak of one site: rows read, weight, and
weight x change of every number of the model. Without differential privacy only: nobody can cut what one patient does
to a model that foreign code trains.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PatientId, printable
from paroma.kernel.wire import framing
from paroma.learn.disclosure import control
from paroma.learn.disclosure.door import PUBLIC, Update
from paroma.learn.flower import rule
from paroma.learn.flower.messages import Exchange, FlowerApp, Model, Trained, TrainedModel, TrainRequest
from paroma.learn.secagg.layout import Field, Layout
from paroma.trust.permit.permit import Permit

WEIGHT: Final = "weight"
CHANGE: Final = "change"
MOST_CHANGE: Final = (
    1024.0  # of one number of the model in one round; so no site moves a sum by more than its rows x this
)
MOST_NUMBERS: Final = 24_000  # of a model: it travels in a message (256 KiB), in double precision
MOST_BUNDLE: Final = 128 << 10  # bytes of a bundle: it travels beside the application
MOST_EXCHANGE: Final = 240 << 10  # bytes
MOST_RUN_CONFIG: Final = 16 << 10  # bytes
_DOMAIN: Final = b"paroma/flower-question/v1\n"


class Averaged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sum of one round: the model that follows from it, the weights' sum, the rows behind it as the permit tells counts."""

    model: Model
    weight: float
    patients: int
    counts_to: int = 1


class AppNotAllowed(Refused):
    """The permit does not hold this app, or not so."""


class AppUnclear(BadInput):
    """The question cannot be asked as it stands."""


class ModelForeign(BadInput):
    """The model that came is not the one that follows from the last sum."""


class ChangeTooLarge(Refused):
    """The app moved a number of the model further than one round may."""


class TrainedUnfit(BadInput):
    """The worker's reply does not fit what it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An app that its permit allows. Made by `plan`. features: columns, in order. rounds: at most."""

    query: FlowerApp
    features: tuple[str, ...]
    rounds: int
    permit: Permit


def plan(query: FlowerApp, described: Collection[str], permit: Permit) -> Plan:
    """Check `query`. described: names of the data set's features. Raises AppNotAllowed, AppUnclear."""
    features = query.features or permit.features
    if "flower" not in permit.algorithms or query.code != permit.code:
        raise AppNotAllowed("the permit does not hold this app", do="apply for a permit that names the app's digest")
    if permit.privacy is not None:
        raise AppNotAllowed(
            "a Flower app cannot run under differential privacy: nobody can cut what one patient does to its model",
            do="apply for a permit without a privacy budget, or use an algorithm of the platform",
        )
    for name in features:
        if name not in permit.features:
            raise AppNotAllowed(
                f"the permit does not hold feature `{printable(name)}`", do="leave it out, or apply for it"
            )
        if name not in described:
            raise AppUnclear(f"the data set has no feature `{printable(name)}`", do="correct the list of features")
    rounds = permit.questions if query.rounds is None else query.rounds
    if len(set(features)) != len(features) or rounds < 1:
        raise AppUnclear("a feature is named twice, or there is no round", do="name each once, and ask for 1 round")
    if rounds > permit.questions:
        raise AppNotAllowed(f"the permit allows {permit.questions} rounds, not {rounds}", do="ask for fewer")
    finite = all(math.isfinite(v) for v in query.run_config.values() if isinstance(v, float))
    if not finite or len(framing.pack(query.run_config)) > MOST_RUN_CONFIG:
        raise AppUnclear("the run config is too large, or holds a number that is not finite", do="write less into it")
    return Plan(query=query, features=features, rounds=rounds, permit=permit)


def read(data: bytes) -> Exchange:
    """The exchange in a request, strictly. Raises BadInput."""
    return framing.unpack(data, Exchange, MOST_EXCHANGE)


def layout(plan: Plan, step: Exchange) -> Layout:
    """The fields of the sum. Raises ModelInvalid, AppUnclear (too large a model), LayoutInvalid."""
    permit, numbers = plan.permit, rule.size(step.model.shapes)
    if numbers > MOST_NUMBERS:
        raise AppUnclear(
            f"the model has {numbers} numbers, at most {MOST_NUMBERS} can be exchanged", do="train a smaller model"
        )
    most = len(permit.participants) * permit.most_patients
    fields = (
        Field(name=PUBLIC, length=1, ring=64, scale_bits=0, bound=1.0),
        Field(name=WEIGHT, length=1, ring=64, scale_bits=_bits(permit, most), bound=1.0),
        Field(name=CHANGE, length=numbers, ring=64, scale_bits=_bits(permit, most * MOST_CHANGE), bound=MOST_CHANGE),
    )
    return Layout(fields=fields, sites=len(permit.participants), most=permit.most_patients)


def question(plan: Plan, step: Exchange) -> str:
    """Hex SHA-256 of app, columns and exchange: what attempts, budget and memory know the question by. The permit is not
    in it.
    """
    asked = framing.pack([plan.query.code, plan.query.run_config, plan.features, step])
    return hashlib.sha256(_DOMAIN + asked).hexdigest()


def check(plan: Plan, asked: Exchange, number: int, before: tuple[Exchange, bytes] | None) -> None:
    """What a site asks before it trains. number: of this question, from 1. before: the last exchange, and its sum.

    The first model is the app's, and its digest is in the log. Every later one is the platform's own mean of the last
    sum, to the last bit: the hub sends its own numbers, never the app's. Raises ModelForeign, ModelInvalid.
    """
    rule.vector(asked.model)
    layout(plan, asked)
    if asked.number != number or number > plan.rounds:
        raise ModelForeign("the round has another number", do="ask one round after the other")
    if before is None:
        return
    if asked.model != advance(plan, *before).model:
        raise ModelForeign(
            "the model that was sent does not follow from the last sum", do="send the mean that the sums give"
        )


def advance(plan: Plan, step: Exchange, total: bytes | bytearray | memoryview) -> Averaged:
    """The mean of a sum. Raises ModelInvalid (no weight, not finite), ContributionInvalid (another size)."""
    numbers = layout(plan, step).decode(total)
    weight = float(numbers[WEIGHT][0])
    model = rule.mean(step.model, numbers[CHANGE], weight)
    to = plan.permit.counts_to
    return Averaged(model=model, weight=weight, patients=control.told(float(numbers[PUBLIC][0]), to), counts_to=to)


def result(averaged: Averaged, rounds: int) -> TrainedModel:
    """What the run found."""
    return TrainedModel(
        shapes=averaged.model.shapes,
        values=tuple(rule.vector(averaged.model).tolist()),
        sha256=hashlib.sha256(averaged.model.values).hexdigest(),
        rounds=rounds,
        patients=averaged.patients,
        counts_to=averaged.counts_to,
    )


def number_of(run: str) -> int:
    """The number that the app knows a run by: 56 bits of its id's SHA-256."""
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:7])


def payload(plan: Plan, step: Exchange, *, run: str, site: int) -> bytes:
    """What a site tells its worker. site: its place among the participants, from 1."""
    return framing.pack(
        TrainRequest(
            shapes=step.model.shapes,
            arrays_key=step.arrays_key,
            config_key=step.config_key,
            config=step.config,
            run_config=plan.query.run_config,
            run=number_of(run),
            site=site,
            sites=len(plan.permit.participants),
        )
    )


def received(
    reply: bytes, plan: Plan, step: Exchange, *, patients: Sequence[PatientId], alive: bytes, attempt: str
) -> Update:
    """The worker's reply as an update. patients: the cohort's, in row order. alive: its consent bits before the task.

    The reply may be the app's own word (it shares the worker with the platform's code), so: everybody whose bit was set
    counts as read, whatever it says; weight, rows and change are held to bounds that the door holds again. Raises
    TrainedUnfit, ChangeTooLarge.
    """
    asked = layout(plan, step)
    weights = rule.size(step.model.shapes)
    bits = (len(patients) + 7) // 8
    answer = framing.unpack(reply, Trained, 8 * weights + bits + 1024)
    if len(answer.change) != 8 * weights or len(answer.used) != bits:
        raise TrainedUnfit("the worker's reply has another size than was asked for", do="look into the worker notes")
    used, live = _on(answer.used, len(patients)), _on(alive, len(patients))
    change = np.frombuffer(answer.change, "<f8").astype(np.float64)
    if answer.rows != int(used.sum()) or not 0 <= answer.weight <= answer.rows or not np.isfinite(change).all():
        raise TrainedUnfit("the worker's rows and weight do not fit each other", do="look into the worker notes")
    if float(np.abs(change).max()) > MOST_CHANGE:
        raise ChangeTooLarge(
            f"the app moved a number of its model by more than {MOST_CHANGE:g} in one round",
            do="scale the model's numbers, or take smaller steps",
        )
    exact = {PUBLIC: np.array([float(answer.rows)]), WEIGHT: np.array([answer.weight]), CHANGE: answer.weight * change}
    totals = [np.rint(np.ldexp(exact[field.name], field.scale_bits)).astype(np.int64) for field in asked.fields]
    return Update(
        attempt=attempt,
        question=question(plan, step),
        layout=asked,
        totals=np.concatenate(totals),
        rows=answer.rows,
        patients=tuple(patients[i] for i in np.flatnonzero(used | live).tolist()),
        bound=None,
    )


def _on(packed: bytes, count: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little").astype(np.bool_)


def _bits(permit: Permit, most: float) -> int:
    """Fraction bits: the permit's, or as many as the ring leaves."""
    return min(permit.fraction_bits, 63 - math.frexp(most)[1])
