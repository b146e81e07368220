"""How well given coefficients tell an outcome, from two histograms of their scores: one question."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paroma.learn.algorithms.logistic import complete
from paroma.learn.algorithms.query import Evaluate, Feature, Judged, Spent
from paroma.learn.disclosure import control
from paroma.learn.disclosure.door import PUBLIC
from paroma.learn.dp.bound import Bound
from paroma.learn.dp.mechanisms import clip

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
SCORES: Final = "scores"  # rows without the outcome by score, then rows with it
REACH: Final = 12.0  # scores (log odds) beyond are counted in the outermost bins


def contribute(
    query: Evaluate, features: Sequence[Feature], columns: Mapping[str, F64], bound: Bound | None
) -> dict[str, I64]:
    """The fields of a batch of selected rows, in steps."""
    x, y = complete(query.outcome, features, columns)
    score = x @ np.array(query.coefficients)
    place = np.clip(np.floor((score + REACH) * (query.bins / (2 * REACH))), 0, query.bins - 1).astype(np.int64)
    half = query.bins // 2
    place = np.where(
        score > 0, np.maximum(place, half), np.minimum(place, half - 1)
    )  # whatever rounding says at the edge
    place += np.where(y > 0, query.bins, 0)
    out = {PUBLIC: np.array([len(y)], np.int64)}
    if bound is None:
        return out | {SCORES: np.bincount(place, minlength=2 * query.bins)}
    # Every row is the norm times a unit vector, and cut rows with one entry are all alike: no need to build them.
    unit = int(clip(np.array([[bound.norm]]), bound)[0, 0])
    return out | {SCORES: np.bincount(place, minlength=2 * query.bins) * unit}


def advance(
    query: Evaluate, total: Mapping[str, Sequence[Fraction]], *, floor: int, norm: float | None, spent: Spent | None
) -> Judged:
    """Accuracy (score above 0 says yes) and AUROC. total: exact numbers by field. Raises ThresholdNotMet."""
    rows = int(total[PUBLIC][0])
    control.threshold(rows, floor, "the evaluation")
    unit = Fraction(1) if norm is None else Fraction(norm)
    counts = [max(Fraction(0), count / unit) for count in total[SCORES]]
    no, yes = counts[: query.bins], counts[query.bins :]
    all_no, all_yes = sum(no), sum(yes)
    control.threshold(float(min(all_no, all_yes)), floor, "one side of the outcome")
    half = query.bins // 2
    if norm is None:  # whoever asks chooses the coefficients: a rule that says yes to one patient tells their outcome
        for said in (sum(no[:half]) + sum(yes[:half]), sum(no[half:]) + sum(yes[half:])):
            if said:  # a model that says the same of everybody tells of nobody
                control.threshold(float(said), floor, "one answer of the model")
    if norm is not None and query.rows is not None:
        rows = round(all_no + all_yes)  # how many a selection takes is no public count
    right = sum(no[:half]) + sum(yes[half:])
    below = above = tied = Fraction(0)
    for n, p in zip(no, yes, strict=True):
        above += p * below
        tied += p * n / 2
        below += n
    pairs = all_no * all_yes
    return Judged(
        patients=rows,
        accuracy=float(right / (all_no + all_yes)),
        auroc=float((above + tied) / pairs),
        auroc_within=float(tied / pairs),
        spent=spent,
    )
