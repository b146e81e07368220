"""From raw columns to numbers: selected rows, the design matrix, the outcome.

Inputs are scaled to [-1, 1] by the public range of each feature, values beyond it taken at its edge: so every row is
bounded before anything is known about it. A level of a category is 1 or -1; the first level has no column, it is the
reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paroma.learn.algorithms.query import Drawn, Feature, Marked, Outcome, Selection

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Columns = Mapping[str, F64]  # raw numbers by feature; a category's are places of levels; NaN is missing
INTERCEPT: Final = "intercept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A column of the design matrix: scaled = slope * x + offset, where x is the feature's number, or 1 for its level
    and 0 else.
    """

    name: str
    feature: str
    level: int | None
    slope: float
    offset: float


def terms(features: Sequence[Feature]) -> tuple[Term, ...]:
    """The columns after the intercept, in the order of the features and of their levels."""
    out = []
    for feature in features:
        if feature.kind == "category":
            out += [
                Term(name=f"{feature.name}={level}", feature=feature.name, level=place, slope=2.0, offset=-1.0)
                for place, level in enumerate(feature.levels)
                if place
            ]
        else:
            low, high = edges(feature)
            slope = 2.0 / (high - low)
            out.append(
                Term(name=feature.name, feature=feature.name, level=None, slope=slope, offset=-slope * low - 1.0)
            )
    return tuple(out)


def edges(feature: Feature) -> tuple[float, float]:
    """The public range of a feature that is no category."""
    return (0.0, 1.0) if feature.kind == "truth" else (feature.low, feature.high)


def scaled(columns: Columns, feature: Feature) -> F64:
    """A number or truth scaled to [-1, 1], values beyond the range at its edge; NaN stays."""
    low, high = edges(feature)
    return (np.clip(columns[feature.name], low, high) - low) * (2.0 / (high - low)) - 1.0


def matrix(columns: Columns, features: Sequence[Feature]) -> F64:
    """The design matrix, intercept first: (rows, 1 + terms). A row with a missing value is NaN in its columns."""
    rows = len(columns[features[0].name])
    out = [np.ones(rows)]
    for feature in features:
        if feature.kind == "category":
            place = columns[feature.name]
            levels = [np.where(place == i, 1.0, -1.0) for i in range(1, len(feature.levels))]
            out += [np.where(np.isnan(place), np.nan, level) for level in levels]
        else:
            out.append(scaled(columns, feature))
    return np.column_stack(out)


def positive(columns: Columns, outcome: Outcome) -> F64:
    """1 where the outcome is greater than `above`, 0 where not, NaN where missing."""
    raw = columns[outcome.feature]
    return np.where(np.isnan(raw), np.nan, (raw > outcome.above).astype(np.float64))


def selected(columns: Columns, rows: Selection, count: int) -> Bool:
    """Which of the batch's `count` rows the query is about."""
    match rows:
        case None:
            return np.ones(count, np.bool_)
        case Marked():
            marked: Bool = columns[rows.feature] == rows.value
            return marked
        case Drawn():
            draw = _hash(columns, rows)
            return (rows.low <= draw) & (draw < rows.high)


def share(rows: Selection) -> float:
    """Which part of all rows a selection takes, as publicly known."""
    match rows:
        case None:
            return 1.0
        case Marked():
            return rows.share
        case Drawn():
            return rows.high - rows.low


def selecting(rows: Selection) -> tuple[str, ...]:
    """The features that a selection reads."""
    match rows:
        case None:
            return ()
        case Marked():
            return (rows.feature,)
        case Drawn():
            return rows.over


def _hash(columns: Columns, rows: Drawn) -> F64:
    """A number in [0, 1) from each row's own values: splitmix64 (Steele, Lea, Flood 2014) over the bits of each
    column.
    """
    state = np.full(len(columns[rows.over[0]]), 0x9E3779B97F4A7C15, np.uint64)
    salt = np.frombuffer(rows.salt.encode().ljust(64, b"\0")[:64], "<u8")
    for word in salt:
        state = _mix(state ^ word)
    for name in rows.over:
        value = columns[name] + 0.0  # one zero
        state = _mix(state ^ np.where(np.isnan(value), np.nan, value).view(np.uint64))  # one NaN
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
