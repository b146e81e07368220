"""Logistic regression over sums: Newton (equal to the pooled fit), or noisy gradients under differential privacy.

Without privacy a step's sum holds, in fixed point: rows, gradient, upper triangle of the Hessian, log-likelihood; the
first one also how many rows each level and the outcome have, for disclosure control. With privacy: rows, and the
gradient of cut rows.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paroma.kernel.errors import Refused
from paroma.learn.algorithms import design, linear
from paroma.learn.algorithms.linear import Matrix, Vector
from paroma.learn.algorithms.query import Descent, Feature, Fitted, Logistic, Newton, Outcome, Spent
from paroma.learn.disclosure import control
from paroma.learn.disclosure.door import PUBLIC
from paroma.learn.dp.bound import Bound
from paroma.learn.dp.mechanisms import clip

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
GRADIENT: Final = "gradient"
HESSIAN: Final = "hessian"
LIKELIHOOD: Final = "likelihood"
LEVELS: Final = "levels"  # rows with the outcome, then rows of each term that is a level or a truth (others: 0)
MOST_LOSS: Final = (
    64.0  # a row's -log-likelihood counts as this at most: a bound for the ring, far beyond any sound fit
)
STILL: Final = 1e-10  # largest coordinate of a direction at which Newton stands still, in scaled units
GRAIN: Final = 1e-7  # below this, a direction that no longer shrinks is the grain of the fixed point
RUNAWAY: Final = 0.3  # a coordinate that still grows by this after so many steps has no maximum
RUNAWAY_STEPS: Final = 8
SHORTEST: Final = 2.0**-10


class NotIdentified(Refused):
    """A coefficient cannot be told: its column follows from others."""


class Separated(Refused):
    """The inputs tell the outcome apart without error: the likelihood has no maximum."""


def contribute(
    query: Logistic,
    features: Sequence[Feature],
    step: Newton | Descent,
    columns: Mapping[str, F64],
    bound: Bound | None,
) -> dict[str, F64 | I64]:
    """The fields of a batch of selected rows. Rows with a missing value take no part. Floats are not on the grid."""
    x, y = complete(query.outcome, features, columns)
    eta = np.clip(x @ np.array(step.at), -700.0, 700.0)
    p = 1.0 / (1.0 + np.exp(-eta))
    rows: dict[str, F64 | I64] = {PUBLIC: np.array([len(y)], np.int64)}
    residual = y - p
    if bound is not None:
        return rows | {GRADIENT: clip(x * residual[:, None], bound).sum(axis=0)}
    hessian = (x * (p * (1.0 - p))[:, None]).T @ x
    loss = np.minimum(np.logaddexp(0.0, np.where(y > 0, -eta, eta)), MOST_LOSS)
    rows |= {
        GRADIENT: x.T @ residual,
        HESSIAN: hessian[np.triu_indices(x.shape[1])],
        LIKELIHOOD: np.array([-loss.sum()]),
    }
    if step.number == 0:
        counted = [_counted(term, feature) for feature in features for term in design.terms([feature])]
        rows[LEVELS] = np.array(
            [int(y.sum())] + [int((x[:, 1 + i] > 0).sum()) if is_level else 0 for i, is_level in enumerate(counted)],
            np.int64,
        )
    return rows


def complete(outcome: Outcome, features: Sequence[Feature], columns: Mapping[str, F64]) -> tuple[F64, F64]:
    """Design matrix and outcome of the rows in which nothing is missing."""
    x, y = design.matrix(columns, features), design.positive(columns, outcome)
    whole = ~(np.isnan(x).any(axis=1) | np.isnan(y))
    return x[whole], y[whole]


def first(features: Sequence[Feature], *, private: bool) -> Newton | Descent:
    """All coefficients 0."""
    zero = (0.0,) * (1 + len(design.terms(features)))
    return Descent(number=0, at=zero, summed=zero) if private else Newton(number=0, at=zero)


def newton(
    query: Logistic, features: Sequence[Feature], step: Newton, total: Mapping[str, Sequence[Fraction]], floor: int
) -> Newton | Fitted:
    """What follows from the sum at `step.at`. Raises ThresholdNotMet, Saturated, NotIdentified, Separated.

    A step that lowers the penalised likelihood is taken back by half. The end: the direction is shorter than 1e-10,
    or as short as the grain of the fixed point; it is walked all the same, so the error left is of second order.
    """
    names = (design.INTERCEPT, *(term.name for term in design.terms(features)))
    d, rows, at = len(names), int(total[PUBLIC][0]), list(step.at)
    control.threshold(rows, floor, "the fit")
    if step.number == 0:
        _check(features, total, rows, d, floor)
    penalty = [0.0] + [query.ridge] * (d - 1)
    gradient = [float(g) - k * b for g, k, b in zip(total[GRADIENT], penalty, at, strict=True)]
    hessian = linear.from_upper([float(h) for h in total[HESSIAN]], d)
    for i in range(d):
        hessian[i][i] += penalty[i]
    likelihood = float(total[LIKELIHOOD][0])
    objective = likelihood - linear.dot(penalty, [b * b for b in at]) / 2
    if step.base and objective < step.objective - 1e-9 * (1 + abs(objective)) and step.length > SHORTEST:
        length = step.length / 2
        back = tuple(b + length * s for b, s in zip(step.base, step.direction, strict=True))
        return Newton(
            number=step.number + 1, at=back, base=step.base, direction=step.direction, objective=step.objective,
            length=length, moved=step.moved,
        )  # fmt: skip
    try:
        factor = linear.cholesky(hessian)
    except linear.NotPositive as problem:
        raise _singular(names[problem.column], step.number) from problem
    direction = linear.solve(factor, gradient)
    moved = max(abs(s) for s in direction)
    ahead = [b + s for b, s in zip(at, direction, strict=True)]
    still = moved < STILL or (moved < GRAIN and step.moved > 0 and moved > step.moved / 4)
    if query.ridge == 0 and step.number >= RUNAWAY_STEPS and moved > RUNAWAY:
        raise _separated()
    if still or step.number + 1 >= query.steps:
        covariance = linear.inverse(factor) if still and query.ridge == 0 else None
        return _fitted(
            query, features, ahead, covariance=covariance, rows=rows, steps=step.number + 1,
            likelihood=likelihood, converged=still, spent=None,
        )  # fmt: skip
    return Newton(
        number=step.number + 1,
        at=tuple(ahead),
        base=step.at,
        direction=tuple(direction),
        objective=objective,
        moved=moved,
    )


def descend(
    query: Logistic, features: Sequence[Feature], step: Descent, total: Mapping[str, Sequence[Fraction]], *,
    floor: int, spent: Spent,
) -> Descent | Fitted:  # fmt: skip
    """What follows from the noisy gradient at `step.at`: a step of fixed length per row; the later half is averaged.

    Raises ThresholdNotMet, Saturated. Row counts are public, so the length may depend on them.
    """
    d, rows = len(step.at), int(total[PUBLIC][0])
    control.threshold(rows, floor, "the fit")
    control.freedom(rows, d)
    rate = 4.0 / (3.0 * rows * design.share(query.rows))
    penalty = [0.0] + [query.ridge] * (d - 1)
    gradient = [float(g) - k * b for g, k, b in zip(total[GRADIENT], penalty, step.at, strict=True)]
    ahead = [b + rate * g for b, g in zip(step.at, gradient, strict=True)]
    late = step.number >= query.steps // 2
    summed = [s + b for s, b in zip(step.summed, ahead, strict=True)] if late else list(step.summed)
    counted = step.counted + late
    if step.number + 1 < query.steps:
        return Descent(number=step.number + 1, at=tuple(ahead), summed=tuple(summed), counted=counted)
    average = [s / counted for s in summed]
    return _fitted(
        query, features, average, covariance=None, rows=rows, steps=step.number + 1,
        likelihood=None, converged=True, spent=spent,
    )  # fmt: skip


def _counted(term: design.Term, feature: Feature) -> bool:
    return term.level is not None or feature.kind == "truth"


def _check(features: Sequence[Feature], total: Mapping[str, Sequence[Fraction]], rows: int, d: int, floor: int) -> None:
    """Threshold on both sides of the outcome, on each level and its reference; residual degrees of freedom."""
    control.freedom(rows, d)
    positives = int(total[LEVELS][0])
    control.threshold(min(positives, rows - positives), floor, "one side of the outcome")
    counts = iter(int(count) for count in total[LEVELS][1:])
    for feature in features:
        mine = [(term, next(counts)) for term in design.terms([feature])]
        told = [(term, count) for term, count in mine if _counted(term, feature)]
        for term, count in told:
            control.threshold(count, floor, f"`{term.name}`")
        if told:
            control.threshold(rows - sum(count for _, count in told), floor, f"the reference of `{feature.name}`")


def _fitted(
    query: Logistic, features: Sequence[Feature], scaled: Vector, *, covariance: Matrix | None, rows: int, steps: int,
    likelihood: float | None, converged: bool, spent: Spent | None,
) -> Fitted:  # fmt: skip
    columns = design.terms(features)
    to_raw = [[1.0, *(term.offset for term in columns)]]
    to_raw += [[term.slope if j == i else 0.0 for j in range(len(columns) + 1)] for i, term in enumerate(columns, 1)]
    errors = raw_errors = None
    if covariance is not None:
        errors = tuple(math.sqrt(covariance[i][i]) for i in range(len(covariance)))
        raw_errors = tuple(math.sqrt(linear.dot(row, [linear.dot(line, row) for line in covariance])) for row in to_raw)
    return Fitted(
        terms=(design.INTERCEPT, *(term.name for term in columns)),
        scaled=tuple(scaled),
        raw=tuple(linear.dot(row, scaled) for row in to_raw),
        scaled_errors=errors,
        raw_errors=raw_errors,
        log_likelihood=likelihood,
        patients=rows,
        steps=steps,
        converged=converged,
        ridge=query.ridge,
        spent=spent,
    )


def _singular(name: str, number: int) -> Refused:
    if number:
        return _separated()
    return NotIdentified(
        f"the coefficient of `{name}` cannot be told: the column follows from the others",
        do="leave that feature out, or ask with ridge above 0",
    )


def _separated() -> Separated:
    return Separated(
        "the inputs tell the outcome apart without error, so the likelihood has no maximum (separation)",
        do="ask with ridge above 0, or name fewer features or levels",
    )
