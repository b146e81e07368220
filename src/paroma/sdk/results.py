"""What came out of a run, to read (`summary`) and to compute with (`to_dict`). Standard library only."""

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from paroma.learn.algorithms.query import Fitted, Judged, Result, Spent, Summary, counted
from paroma.learn.flower.messages import TrainedModel
from paroma.sdk import tables

Z95: Final = 1.959963984540054  # normal quantile: half width of a 95 % interval in standard errors
_WIDTH: Final = 78


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One coefficient, per own unit of its feature. All but the first two are None where no standard error is told.

    z: coefficient / std_err. p: two-sided, normal. low, high: 95 % interval.
    """

    name: str
    coef: float
    std_err: float | None
    z: float | None
    p: float | None
    low: float | None
    high: float | None

    @property
    def odds_ratio(self) -> float:
        """By how much the odds are multiplied, per unit; infinite where that is no float."""
        return _exp(self.coef)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Logistic:
    """A logistic regression."""

    fitted: Fitted
    title: str = "Logistic regression"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The coefficients, the intercept first."""
        errors = self.fitted.raw_errors or (None,) * len(self.fitted.raw)
        return tuple(map(_term, self.fitted.terms, self.fitted.raw, errors))

    def __getitem__(self, name: str) -> Term:
        for term in self.terms:
            if term.name == name:
                return term
        raise KeyError(name)

    def summary(self) -> str:
        """Coefficients, standard errors, z, p, 95 % intervals and odds ratios, as statsmodels prints them."""
        fit = self.fitted
        facts = [
            ("Patients", counted(fit.patients, fit.counts_to)),
            ("Rounds", f"{fit.steps}" + ("" if fit.converged else ", not converged")),
            ("Log-likelihood", tables.maybe(fit.log_likelihood)),
            ("Ridge", f"{fit.ridge:g}"),
        ]
        head = ("", "coef", "std err", "z", "P>|z|", "[0.025", "0.975]", "odds ratio")
        rows = [
            (
                term.name,
                tables.figure(term.coef, 4),
                tables.maybe(term.std_err),
                tables.maybe(term.z),
                "-" if term.p is None else f"{term.p:.3f}",
                tables.maybe(term.low),
                tables.maybe(term.high),
                tables.figure(term.odds_ratio),
            )
            for term in self.terms
        ]
        body = tables.columns(head, rows, right=frozenset(range(1, len(head))))
        note = "" if fit.raw_errors else _why_no_errors(fit)
        return _page(self.title, facts, body, note, fit.spent)

    def to_dict(self) -> dict[str, object]:
        """All figures by name."""
        terms = [
            {
                "term": t.name,
                "coef": t.coef,
                "std_err": t.std_err,
                "z": t.z,
                "p": t.p,
                "low": t.low,
                "high": t.high,
                "odds_ratio": t.odds_ratio if math.isfinite(t.odds_ratio) else None,
            }
            for t in self.terms
        ]
        return {**_plain(self.fitted), "coefficients": terms}

    def __repr__(self) -> str:
        return self.summary()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Statistics:
    """Counts, means, deviations and histograms."""

    found: Summary
    title: str = "Statistics"

    def summary(self) -> str:
        """A line a feature, and its histogram."""
        head = ("", "count", "missing", "mean", "std dev", "distribution")
        rows = [
            (
                one.feature,
                _count(one.count),
                _count(one.missing),
                tables.maybe(one.mean),
                "-" if one.variance is None else tables.figure(math.sqrt(max(one.variance, 0.0))),
                tables.bars([cell.count for cell in one.cells]),
            )
            for one in self.found.features
        ]
        body = tables.columns(head, rows, right=frozenset(range(1, 5)))
        facts = [("Patients", counted(self.found.patients, self.found.counts_to))]
        rounded = f"Counts are told to the nearest {self.found.counts_to}." if self.found.counts_to > 1 else ""
        note = "\n".join(filter(None, (rounded, *self.found.notes)))
        return _page(self.title, facts, body, note, self.found.spent)

    def to_dict(self) -> dict[str, object]:
        """All figures by name."""
        return _plain(self.found)

    def __repr__(self) -> str:
        return self.summary()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Performance:
    """How well a model tells the outcome."""

    judged: Judged
    title: str = "Performance"

    def summary(self) -> str:
        """Accuracy and AUROC."""
        found = self.judged
        rows = [
            ("accuracy", f"{found.accuracy:.4f}", ""),
            ("AUROC", f"{found.auroc:.4f}", f"within {tables.figure(found.auroc_within, 4)}"),
        ]
        facts = [("Patients", counted(found.patients, found.counts_to))]
        return _page(self.title, facts, tables.columns(("", "value", ""), rows, right=frozenset({1})), "", found.spent)

    def to_dict(self) -> dict[str, object]:
        """All figures by name."""
        return _plain(self.judged)

    def __repr__(self) -> str:
        return self.summary()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Model:
    """What a Flower app trained."""

    trained: TrainedModel
    title: str = "Flower app"

    @property
    def arrays(self) -> dict[str, tuple[float, ...]]:
        """The numbers of each array by name, rows first; the shapes are in `trained.shapes`."""
        found, at = {}, 0
        for shape in self.trained.shapes:
            size = math.prod(shape.dims)
            found[shape.name] = self.trained.values[at : at + size]
            at += size
        return found

    def summary(self) -> str:
        """A line an array: its shape, its least and its greatest number."""
        rows = [
            (
                shape.name,
                " x ".join(map(str, shape.dims)),
                tables.maybe(min(self.arrays[shape.name], default=None)),
                tables.maybe(max(self.arrays[shape.name], default=None)),
            )
            for shape in self.trained.shapes
        ]
        body = tables.columns(("array", "shape", "least", "greatest"), rows, right=frozenset({1, 2, 3}))
        facts = [
            ("Patients", counted(self.trained.patients, self.trained.counts_to)),
            ("Rounds", str(self.trained.rounds)),
        ]
        return _page(self.title, facts, body, f"SHA-256 of the model: {self.trained.sha256}", None)

    def to_dict(self) -> dict[str, object]:
        """All figures by name."""
        return _plain(self.trained)

    def __repr__(self) -> str:
        return self.summary()


Outcome = Logistic | Statistics | Performance | Model


def of(result: Result | TrainedModel, title: str) -> Outcome:
    """The readable form of what a run found."""
    match result:
        case Fitted():
            return Logistic(fitted=result, title=title)
        case Summary():
            return Statistics(found=result, title=title)
        case Judged():
            return Performance(judged=result, title=title)
        case TrainedModel():
            return Model(trained=result, title=title)


def _term(name: str, coef: float, error: float | None) -> Term:
    if error is None or not error > 0:
        return Term(name=name, coef=coef, std_err=error, z=None, p=None, low=None, high=None)
    z = coef / error
    p = math.erfc(abs(z) / math.sqrt(2))
    return Term(name=name, coef=coef, std_err=error, z=z, p=p, low=coef - Z95 * error, high=coef + Z95 * error)


def _page(title: str, facts: list[tuple[str, str]], body: str, note: str, spent: Spent | None) -> str:
    width = max(_WIDTH, *(len(line) for line in body.splitlines()))
    head, *rows = body.splitlines()
    told = "   ".join(f"{name}: {value}" for name, value in facts)
    lines = [title.center(width).rstrip(), "=" * width, told, "=" * width, head, "-" * width, *rows, "=" * width]
    if spent is not None:
        lines.append(
            f"Differential privacy: epsilon {spent.epsilon:.4g} at delta {spent.delta:.0e} over {spent.questions} "
            "questions, per patient and hospital; row counts and participation are public."
        )
    return "\n".join([*lines, *([note] if note else [])])


def _why_no_errors(fit: Fitted) -> str:
    why = "noise was added for privacy" if fit.spent is not None else "a penalty was set (ridge)"
    return f"No standard errors: {why}."


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _plain(struct: msgspec.Struct) -> dict[str, object]:
    found = msgspec.to_builtins(struct)
    if not isinstance(found, dict):  # a struct without `array_like` is an object
        raise TypeError("not an object")
    return found
