"""What a scientist may ask, and what comes out. Every type here travels; nothing here needs numpy.

Counts of a result are told to the nearest multiple of its `counts_to`, which the permit names; 1: exactly. Means, variances and
coefficients are what exact sums give.

Rows: a table holds one row a patient, in random order. A row with a missing value in any column that a model uses
takes no part in it; in `Statistics` each feature counts its own missing values.
"""

from typing import Literal

import msgspec

MOST_BINS = 10_000


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A column as its public description has it. Nothing here was computed from records.

    kind: `number` lies in the public clinical range [low, high] (in its own unit; values beyond are taken at the
    edge, and the edges of a histogram divide this range); `truth` is 0 or 1; `category` is one of `levels`, the first
    of which is the reference. A numeric column of a category holds the levels' own numbers (`levels` then reads as
    numbers), or else their places 0, 1, 2...
    """

    name: str
    kind: Literal["number", "truth", "category"]
    low: float = 0.0
    high: float = 1.0
    levels: tuple[str, ...] = ()


class Marked(msgspec.Struct, frozen=True, kw_only=True, tag="marked", forbid_unknown_fields=True):
    """Only the rows whose column `feature` equals `value` (a number, or the place of a level).

    share: about which part of all rows that is, as publicly known; under privacy it sets the length of steps.
    """

    feature: str
    value: float
    share: float = 1.0


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn", forbid_unknown_fields=True):
    """Only the rows that a public hash of their own values puts into [low, high) of [0, 1).

    The hash runs over the columns `over` and `salt`, so a patient keeps her side whatever the order of the rows and
    whoever else is in the cohort; equal rows fall on the same side. Training on [0, 2/3) and testing on [2/3, 1) with
    the same `over` and `salt` divides the rows.
    """

    over: tuple[str, ...]
    salt: str
    low: float
    high: float


Selection = Marked | Drawn | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True, tag="statistics", forbid_unknown_fields=True):
    """Counts, means, variances and histograms of each feature; counts per level of a category. One question.

    bins: cells of each histogram, of equal width over the public range.
    """

    features: tuple[str, ...]
    bins: int = 10
    rows: Selection = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a classifier tells apart: rows whose `feature` is greater than `above` (a number, 0 or 1, the place of a
    level).
    """

    feature: str
    above: float = 0.0


class Logistic(msgspec.Struct, frozen=True, kw_only=True, tag="logistic", forbid_unknown_fields=True):
    """Logistic regression of an outcome.

    ridge: weight of half the squared length of the coefficients of the scaled inputs, the intercept left out; 0 is
    the plain maximum of the likelihood. Without privacy: Newton, until it stands still or `steps` are used up. With:
    `steps` noisy gradients of all rows, the later half of the coefficients averaged.
    """

    outcome: Outcome
    features: tuple[str, ...]
    ridge: float = 0.0
    steps: int = 12
    rows: Selection = None


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, tag="evaluate", forbid_unknown_fields=True):
    """How well given coefficients (of the scaled inputs, intercept first, in the order of `Fitted.terms`) tell the
    outcome. One question.

    bins: cells of the scores' histogram, even, so that score 0 is an edge and accuracy is exact.
    """

    outcome: Outcome
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    bins: int = 2048
    rows: Selection = None


Query = Statistics | Logistic | Evaluate


class Once(msgspec.Struct, frozen=True, kw_only=True, tag="once", forbid_unknown_fields=True):
    """The only step of a question that one sum answers."""

    number: int = 0


class Newton(msgspec.Struct, frozen=True, kw_only=True, tag="newton", forbid_unknown_fields=True):
    """A Newton step is asked for at `at`. `base`, `direction`, `objective`: where the last accepted step stood, and
    went.

    length: how much of `direction` was walked (1, halved after a step that went down). moved: largest coordinate of the
    last full direction.
    """

    number: int
    at: tuple[float, ...]
    base: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()
    objective: float = 0.0
    length: float = 1.0
    moved: float = 0.0


class Descent(msgspec.Struct, frozen=True, kw_only=True, tag="descent", forbid_unknown_fields=True):
    """A noisy gradient is asked for at `at`. summed: the coefficients of the later half so far, added up; counted:
    how many.
    """

    number: int
    at: tuple[float, ...]
    summed: tuple[float, ...]
    counted: int = 0


Step = Once | Newton | Descent


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """The privacy of a result, per patient and hospital, under add-or-remove-one.

    Public, and not covered: who took part, and how many patients' rows were read in all.
    """

    epsilon: float
    delta: float
    questions: int


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One bar: its name, and how many. Small cells are merged until none is below the floor; None when even that is
    not enough.
    """

    label: str
    count: float | None


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One feature. count, missing: None where too few are (or are not) missing to say. mean, variance (n - 1) in its
    own unit (squared); None for a category, or where too few patients stand behind them.
    """

    feature: str
    count: float | None
    missing: float | None
    mean: float | None
    variance: float | None
    cells: tuple[Cell, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    """What `Statistics` found."""

    patients: int
    features: tuple[Described, ...]
    notes: tuple[str, ...] = ()
    spent: Spent | None = None
    counts_to: int = 1


class Fitted(msgspec.Struct, frozen=True, kw_only=True, tag="fitted"):
    """What `Logistic` found.

    terms: `intercept`, `age`, `cp=2`... scaled: coefficients of inputs scaled to [-1, 1] by public ranges (a level:
    1, another level: -1). raw: per own unit of the feature, and per level against the reference. Errors: None under
    ridge or privacy. patients: rows that took part; under privacy, rows read.
    """

    terms: tuple[str, ...]
    scaled: tuple[float, ...]
    raw: tuple[float, ...]
    scaled_errors: tuple[float, ...] | None
    raw_errors: tuple[float, ...] | None
    log_likelihood: float | None
    patients: int
    steps: int
    converged: bool
    ridge: float
    spent: Spent | None = None
    counts_to: int = 1


class Judged(msgspec.Struct, frozen=True, kw_only=True, tag="judged"):
    """What `Evaluate` found. auroc: ties count half; auroc_within: the true one is no further away (binning)."""

    patients: int
    accuracy: float
    auroc: float
    auroc_within: float
    spent: Spent | None = None
    counts_to: int = 1


Result = Summary | Fitted | Judged


def counted(count: float, to: int) -> str:
    """`about 740`, where the permit tells counts to the nearest 5 or so; `742` where exactly."""
    return f"about {count:.0f}" if to > 1 else f"{count:.0f}"
