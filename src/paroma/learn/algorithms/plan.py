"""From a question to its answer, step by step, the same at the hub and at every site.

`plan` checks the query against the permit and the public descriptions; `first` opens it; `advance` takes the sum of a
step and gives the next step or the result. All pure. Coefficients are computed in Python floats, one IEEE operation
after the other, so that every machine gets the same bits, and a site can recompute the model that it is sent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import msgspec

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import printable
from paroma.learn.algorithms import design, evaluate, logistic, statistics
from paroma.learn.algorithms.query import (
    MOST_BINS,
    Cell,
    Descent,
    Drawn,
    Evaluate,
    Feature,
    Fitted,
    Judged,
    Logistic,
    Marked,
    Newton,
    Once,
    Query,
    Result,
    Spent,
    Statistics,
    Step,
    Summary,
)
from paroma.learn.algorithms.request import Request
from paroma.learn.disclosure import control
from paroma.learn.disclosure.door import PUBLIC
from paroma.learn.dp import accountants, bound as grid, fit
from paroma.learn.dp.bound import Share
from paroma.learn.secagg.layout import Field, Layout
from paroma.trust.permit.permit import Permit

MOST_TERMS: Final = 64
MOST_LEVELS: Final = 256
ROUNDING: Final = 1 + 2.0**-10  # a bound's margin for floats and for rounding to the grid


class QueryUnclear(BadInput):
    """The query cannot be answered as it stands."""


class NotInPermit(Refused):
    """The query asks for more than the permit allows."""


class StepForeign(BadInput):
    """The step does not belong to the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A query that its permit allows, with the descriptions of all columns that it reads. Made by `plan`.

    model: the features of the design matrix (or those described), in the query's order. features: they, the outcome
    and the columns that select rows.
    """

    query: Query
    model: tuple[Feature, ...]
    features: tuple[Feature, ...]
    permit: Permit


def plan(query: Query, features: Sequence[Feature], permit: Permit) -> Plan:
    """Check `query`. features: the data set's descriptions. Raises QueryUnclear, NotInPermit, NoiseTooCoarse, NoiseOutOfRange."""
    described = {feature.name: feature for feature in features}
    outcome = () if isinstance(query, Statistics) else (query.outcome.feature,)
    selecting = design.selecting(query.rows)
    names = tuple(dict.fromkeys((*query.features, *outcome, *selecting)))
    if not query.features or len(set(query.features)) != len(query.features):
        raise QueryUnclear(
            "a query names each of its features once, and at least one", do="correct the list of features"
        )
    for name in names:
        if name not in described:
            known = ", ".join(f"`{known}`" for known in described)
            raise QueryUnclear(f"the data set has no feature `{printable(name)}`", do=f"name some of {known}")
        if name not in permit.features:
            raise NotInPermit(
                f"the permit does not hold feature `{name}`", do="leave it out, or apply for a permit with it"
            )
    algorithm = "statistics" if isinstance(query, Statistics) else "logistic"
    if algorithm not in permit.algorithms:
        raise NotInPermit(f"the permit does not hold algorithm `{algorithm}`", do="apply for a permit that names it")
    made = Plan(
        query=query,
        model=tuple(described[name] for name in query.features),
        features=tuple(described[name] for name in names),
        permit=permit,
    )
    for feature in made.features:
        _check_feature(feature)
    _check(made)
    if permit.privacy is not None:
        fit.check(permit, _noised(made)[1])
    layout(made, first(made))
    return made


def check_permit(permit: Permit, features: Sequence[Feature]) -> None:
    """Whether every algorithm of the permit can answer its smallest question: one feature. features: the data set's
    descriptions. Raises NoiseTooCoarse and NoiseOutOfRange, with what would pass.
    """
    named = [feature for feature in features if feature.name in permit.features]
    if permit.privacy is None or not named:
        return
    if "statistics" in permit.algorithms:
        alone = (Statistics(features=(feature.name,), bins=2) for feature in named)
        sizes = (sum(statistics.row_sizes(query, [f]).values()) for query, f in zip(alone, named, strict=True))
        fit.check(permit, min(sizes))
    if "logistic" in permit.algorithms:
        fit.check(permit, 1 + min(len(design.terms([feature])) for feature in named))


def layout(plan: Plan, step: Step) -> Layout:
    """The fields of the sum that this step asks for: ring, scale and bound follow from query, permit and step alone.

    Raises LayoutInvalid where the permit's cap of patients does not fit the ring.
    """
    permit, sites = plan.permit, len(plan.permit.participants)
    fields = [Field(name=PUBLIC, length=1, ring=64, scale_bits=0, bound=1.0)]
    share = _share(plan)
    if share is not None and permit.privacy is not None:
        name, length = _noised(plan)
        noise = permit.privacy.noise_multiplier * permit.privacy.clipping_norm
        room = permit.privacy.clipping_norm + 64 * noise / permit.most_patients
        fields.append(Field(name=name, length=length, ring=64, scale_bits=share.bound.scale_bits, bound=room))
    else:
        for name, (length, bound, counted) in _exact(plan, step).items():
            bits = 0 if counted else _bits(permit, bound)
            fields.append(Field(name=name, length=length, ring=64, scale_bits=bits, bound=bound))
    return Layout(fields=tuple(fields), sites=sites, most=permit.most_patients)


def question(plan: Plan, step: Step) -> str:
    """Hex SHA-256 of query, descriptions and step: what attempts, budget and memory know the question by.

    The permit is not in it, so that the same question under another permit of the study is recognised.
    """
    parts = {
        "query": msgspec.to_builtins(plan.query),
        "features": msgspec.to_builtins(plan.features),
        "step": msgspec.to_builtins(step),
    }
    return canonical.digest(parts)


def selection(plan: Plan) -> str:
    """Hex SHA-256 of which rows the query is about; empty for all of them. What the memory of disclosures compares."""
    return "" if plan.query.rows is None else canonical.digest(msgspec.to_builtins(plan.query.rows))


def request(plan: Plan, step: Step) -> Request:
    """What a site tells its worker."""
    share = _share(plan)
    return Request(
        query=plan.query,
        model=plan.model,
        features=plan.features,
        step=step,
        layout=layout(plan, step),
        bound=None if share is None else share.bound,
        most_patients=plan.permit.most_patients,
    )


def first(plan: Plan) -> Step:
    """The step that opens the question."""
    if isinstance(plan.query, Logistic):
        return logistic.first(plan.model, private=plan.permit.privacy is not None)
    return Once()


def advance(plan: Plan, step: Step, total: bytes | bytearray | memoryview) -> Step | Result:
    """What follows from the sum of a step; counts as the permit tells them. total: the unmasked fields, little-endian, as
    `layout(plan, step)` orders them.

    Raises ThresholdNotMet, Saturated, Separated, NotIdentified, ContributionInvalid (another size), StepForeign.
    """
    privacy, floor = plan.permit.privacy, plan.permit.least_patients
    numbers = _numbers(layout(plan, step), total)
    norm = None if privacy is None else privacy.clipping_norm
    spent = _spent(plan, step)
    match plan.query, step:
        case Statistics() as query, Once():
            found = statistics.advance(query, plan.model, step, numbers, floor=floor, norm=norm, spent=spent)
            return _told(found, plan.permit.counts_to)
        case Evaluate() as query, Once():
            return _told(evaluate.advance(query, numbers, floor=floor, norm=norm, spent=spent), plan.permit.counts_to)
        case Logistic() as query, Newton() if privacy is None:
            return _told(logistic.newton(query, plan.model, step, numbers, floor), plan.permit.counts_to)
        case Logistic() as query, Descent() if spent is not None:
            after = logistic.descend(query, plan.model, step, numbers, floor=floor, spent=spent)
            return _told(after, plan.permit.counts_to)
        case _:
            raise StepForeign("the step does not belong to the query", do="open the question with its own first step")


def _told(outcome: Step | Result, to: int) -> Step | Result:
    """A result with its counts rounded to the permit's step; a step has none."""
    if not isinstance(outcome, Summary | Fitted | Judged):
        return outcome
    patients = control.told(outcome.patients, to)
    if not isinstance(outcome, Summary):
        return msgspec.structs.replace(outcome, patients=patients, counts_to=to)
    features = tuple(
        msgspec.structs.replace(
            one,
            count=None if one.count is None else control.told(one.count, to),
            missing=None if one.missing is None else control.told(one.missing, to),
            cells=tuple(
                Cell(label=cell.label, count=None if cell.count is None else control.told(cell.count, to))
                for cell in one.cells
            ),
        )
        for one in outcome.features
    )
    return msgspec.structs.replace(outcome, patients=patients, features=features, counts_to=to)


def finished(outcome: Step | Result) -> bool:
    """Whether `advance` gave a result."""
    return isinstance(outcome, Summary | Fitted | Judged)


def _noised(plan: Plan) -> tuple[str, int]:
    """The one noised field, and its length."""
    match plan.query:
        case Statistics() as query:
            return statistics.NOISED, sum(statistics.row_sizes(query, plan.model).values())
        case Logistic():
            return logistic.GRADIENT, 1 + len(design.terms(plan.model))
        case Evaluate() as query:
            return evaluate.SCORES, 2 * query.bins


def _exact(plan: Plan, step: Step) -> Mapping[str, tuple[int, float, bool]]:
    """Without privacy: length, bound per patient, and whether it is a count, of each field."""
    match plan.query:
        case Statistics() as query:
            sizes = statistics.sizes(query, plan.model)
            return {name: (size, ROUNDING, name in {"present", "cells"}) for name, size in sizes.items()}
        case Evaluate() as query:
            return {evaluate.SCORES: (2 * query.bins, 1.0, True)}
        case Logistic():
            d = 1 + len(design.terms(plan.model))
            fields = {
                logistic.GRADIENT: (d, ROUNDING, False),
                logistic.HESSIAN: (d * (d + 1) // 2, 0.25 * ROUNDING, False),
                logistic.LIKELIHOOD: (1, logistic.MOST_LOSS * ROUNDING, False),
            }
            if step.number == 0:
                fields[logistic.LEVELS] = (d, 1.0, True)
            return fields


def _bits(permit: Permit, bound: float) -> int:
    """Fraction bits: the permit's, or as many as the ring leaves."""
    return min(permit.fraction_bits, 63 - math.frexp(len(permit.participants) * permit.most_patients * bound)[1])


def _share(plan: Plan) -> Share | None:
    return None if plan.permit.privacy is None else grid.share(plan.permit, plan.permit.privacy)


def _spent(plan: Plan, step: Step) -> Spent | None:
    privacy = plan.permit.privacy
    if privacy is None:
        return None
    questions = step.number + 1
    return Spent(epsilon=accountants.spent(privacy, questions), delta=privacy.delta, questions=questions)


def _numbers(layout: Layout, total: bytes | bytearray | memoryview) -> dict[str, list[Fraction]]:
    """The sum as exact numbers."""
    bits = {field.name: field.scale_bits for field in layout.fields}
    return {
        name: [Fraction(value) / (Fraction(2) ** bits[name]) for value in steps.tolist()]
        for name, steps in layout.steps(total).items()
    }


def _check_feature(feature: Feature) -> None:
    if feature.kind == "category":
        sound = 2 <= len(feature.levels) <= MOST_LEVELS and len(set(feature.levels)) == len(feature.levels)
    else:
        sound = math.isfinite(feature.low) and math.isfinite(feature.high) and feature.low < feature.high
    if not sound:
        raise QueryUnclear(
            f"feature `{printable(feature.name)}` has no usable public range or levels",
            do="correct the description of the data set",
        )


def _check(plan: Plan) -> None:
    query, terms = plan.query, 1 + len(design.terms(plan.model))
    rules: list[tuple[bool, str, str]] = []
    if isinstance(query.rows, Drawn):
        drawn = 0 <= query.rows.low < query.rows.high <= 1 and bool(query.rows.over)
        rules.append((drawn, "the drawn part is no part of [0, 1)", "give 0 <= low < high <= 1 and columns"))
    if not isinstance(query, Statistics):
        rules += [
            (
                query.outcome.feature not in query.features,
                "the outcome explains itself",
                "leave it out of the features",
            ),
            (math.isfinite(query.outcome.above), "`above` is not finite", "write a finite number"),
            (terms <= MOST_TERMS, f"{terms} terms are too many", f"name features with at most {MOST_TERMS} terms"),
        ]
    if isinstance(query.rows, Marked):
        marked = math.isfinite(query.rows.value) and 0 < query.rows.share <= 1
        rules.append((marked, "the marked part has no value, or no share", "give a finite value and 0 < share <= 1"))
    match query:
        case Statistics():
            rules.append(
                (1 < query.bins <= MOST_BINS, "a histogram cannot have so many bins", f"ask for 2 to {MOST_BINS}")
            )
        case Evaluate():
            even = 1 < query.bins <= MOST_BINS and query.bins % 2 == 0
            finite = len(query.coefficients) == terms and all(map(math.isfinite, query.coefficients))
            rules += [
                (even, "the scores' bins are not even, or too many", f"ask for an even number, 2 to {MOST_BINS}"),
                (finite, "the coefficients do not fit the features", f"give {terms} finite numbers, intercept first"),
            ]
        case Logistic():
            privacy = plan.permit.privacy
            most = plan.permit.questions if privacy is None else privacy.questions
            rules += [
                (
                    math.isfinite(query.ridge) and query.ridge >= 0,
                    "ridge is negative or not finite",
                    "ask with ridge >= 0",
                ),
                (query.steps >= 1, "there is no step", "ask for at least 1"),
            ]
            if query.steps > most:
                raise NotInPermit(
                    f"the permit allows {most} questions, not {query.steps}", do=f"ask for at most {most} steps"
                )
    for holds, what, do in rules:
        if not holds:
            raise QueryUnclear(what, do=do)
