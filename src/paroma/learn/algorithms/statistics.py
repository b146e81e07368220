"""Counts, means, variances, histograms: one question.

Without privacy each value is put on the grid by itself and added as an integer, so the sums are exact and the same in
any order. With privacy everything that a patient adds is one row, scaled by public bounds alone to the permit's norm.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from paroma.learn.algorithms import design
from paroma.learn.algorithms.query import Cell, Described, Feature, Once, Spent, Statistics, Summary
from paroma.learn.disclosure import control
from paroma.learn.disclosure.door import PUBLIC
from paroma.learn.dp.bound import Bound
from paroma.learn.dp.mechanisms import clip

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
MISSING = "missing"
NOISED = "row"


def sizes(query: Statistics, features: Sequence[Feature]) -> dict[str, int]:
    """Length of each field: how many are there; sums and sums of squares of scaled values; cells, feature after
    feature.
    """
    numbers = sum(feature.kind == "number" for feature in features)
    cells = sum(len(labels(feature, query.bins)) for feature in features)
    return {"present": len(features), "sums": max(numbers, 1), "squares": max(numbers, 1), "cells": cells}


def row_sizes(query: Statistics, features: Sequence[Feature]) -> dict[str, int]:
    """The parts of a noised row: as `sizes`, and how many rows a selection takes, which is no public count."""
    return ({} if query.rows is None else {"selected": 1}) | sizes(query, features)


def labels(feature: Feature, bins: int) -> tuple[tuple[str, str], ...]:
    """First and last edge of each cell of a feature; the level twice for a category."""
    match feature.kind:
        case "category":
            return tuple((level, level) for level in feature.levels)
        case "truth":
            return (("no", "no"), ("yes", "yes"))
        case "number":
            edges = _edges(feature, bins)
            return tuple((f"{low:g}", f"{high:g}") for low, high in pairwise(edges))


def weight(query: Statistics, features: Sequence[Feature], norm: float) -> float:
    """What a row is multiplied with under privacy, so that its public bound is the norm: nothing then is really cut.

    A number adds 1 (present), u, u^2 and 1 (its cell), |u| <= 1; others add present and a cell; a selection adds 1.
    """
    return norm / math.sqrt(
        (query.rows is not None) + sum(4 if feature.kind == "number" else 2 for feature in features)
    )


def contribute(
    query: Statistics, features: Sequence[Feature], columns: Mapping[str, F64], bound: Bound | None, scale_bits: int
) -> dict[str, I64]:
    """The fields of a batch of selected rows, in steps. scale_bits: of sums and squares, when privacy is off."""
    rows = len(columns[features[0].name])
    present = np.column_stack([~np.isnan(columns[feature.name]) for feature in features]).astype(np.float64)
    numbers = [feature for feature in features if feature.kind == "number"]
    u = np.zeros((rows, max(len(numbers), 1)))
    for i, feature in enumerate(numbers):
        u[:, i] = np.nan_to_num(design.scaled(columns, feature))
    cells = np.column_stack([_cells(columns[feature.name], feature, query.bins) for feature in features])
    if bound is not None:
        selected = np.ones((rows, 0 if query.rows is None else 1))
        row = np.column_stack([selected, present, u, u * u, cells]) * weight(query, features, bound.norm)
        return {NOISED: clip(row, bound).sum(axis=0), PUBLIC: np.array([rows], np.int64)}
    return {
        PUBLIC: np.array([rows], np.int64),
        "present": present.sum(axis=0).astype(np.int64),
        "sums": np.rint(np.ldexp(u, scale_bits)).astype(np.int64).sum(axis=0),
        "squares": np.rint(np.ldexp(u * u, scale_bits)).astype(np.int64).sum(axis=0),
        "cells": cells.sum(axis=0).astype(np.int64),
    }


def advance(
    query: Statistics, features: Sequence[Feature], step: Once, total: Mapping[str, Sequence[Fraction]], *,
    floor: int, norm: float | None, spent: Spent | None,
) -> Summary:  # fmt: skip
    """The answer. total: exact numbers by field. norm: the permit's, with privacy. Raises ThresholdNotMet."""
    del step  # there is only one
    patients = int(total[PUBLIC][0])
    control.threshold(patients, floor, "the figures")
    fields = _unpack(query, features, total, norm) if norm is not None else total
    if "selected" in fields:
        patients = max(0, round(fields["selected"][0]))
        control.threshold(patients, floor, "the figures")
    numbers = [feature.name for feature in features if feature.kind == "number"]
    out, at = [], 0
    for i, feature in enumerate(features):
        size = len(labels(feature, query.bins))
        k = numbers.index(feature.name) if feature.kind == "number" else None
        moments = None if k is None else (fields["sums"][k], fields["squares"][k])
        cells = [max(0, round(count)) for count in fields["cells"][at : at + size]]
        out.append(_described(
            query, feature, patients=patients, present=max(0, round(fields["present"][i])), moments=moments,
            cells=cells, floor=floor,
        ))  # fmt: skip
        at += size
    return Summary(patients=patients, features=tuple(out), spent=spent)


def _described(
    query: Statistics, feature: Feature, *, patients: int, present: int, moments: tuple[Fraction, Fraction] | None,
    cells: list[int], floor: int,
) -> Described:  # fmt: skip
    missing = max(0, patients - present)
    told = missing == 0 or (missing >= floor and present >= floor)
    mean = variance = None
    if moments is not None and present >= floor:
        low, high = (Fraction(edge) for edge in design.edges(feature))
        half = (high - low) / 2
        centre = moments[0] / present
        mean = float(low + half * (centre + 1))
        if present - 1 >= control.RESIDUAL_FREEDOM:
            variance = max(0.0, float(half * half * (moments[1] - present * centre * centre) / (present - 1)))
    names = labels(feature, query.bins)
    if feature.kind == "number":
        if not told:  # few are missing: the first cell takes them in, or the total of the cells would say how few
            cells = [cells[0] + missing, *cells[1:]]
            names = ((f"{MISSING} or {names[0][0]}", names[0][1]), *names[1:])
        shown = tuple(Cell(label=f"{a} to {b}", count=n) for (a, b), n in control.merge(names, cells, floor))
    else:
        levels = [name for name, _ in names]
        if missing:
            levels, cells = [*levels, MISSING], [*cells, missing]
        shown = tuple(Cell(label=label, count=n) for label, n in control.gather(levels, cells, floor))
    return Described(
        feature=feature.name, count=present if told else None, missing=missing if told else None,
        mean=mean, variance=variance, cells=shown,
    )  # fmt: skip


def _unpack(
    query: Statistics, features: Sequence[Feature], total: Mapping[str, Sequence[Fraction]], norm: float
) -> dict[str, Sequence[Fraction]]:
    """The noised row of all fields, taken apart and scaled back."""
    row = [value / Fraction(weight(query, features, norm)) for value in total[NOISED]]
    out: dict[str, Sequence[Fraction]] = {}
    at = 0
    for name, size in row_sizes(query, features).items():
        out[name] = row[at : at + size]
        at += size
    return out


def _edges(feature: Feature, bins: int) -> list[float]:
    low, high = feature.low, feature.high
    return [low + (high - low) * i / bins for i in range(bins)] + [high]


def _cells(raw: F64, feature: Feature, bins: int) -> F64:
    """(rows, cells): 1 in the cell of each row. A cell holds its low edge; the last one its high edge, too; beyond is
    at the edge.
    """
    count = len(labels(feature, bins))
    if feature.kind == "number":
        place = np.clip(np.searchsorted(_edges(feature, bins)[1:-1], raw, side="right"), 0, count - 1)
    else:
        place = np.clip(np.nan_to_num(raw), 0, count - 1).astype(np.int64)
    out = np.zeros((len(raw), count))
    out[np.arange(len(raw)), place] = 1.0
    out[np.isnan(raw)] = 0.0
    return out
