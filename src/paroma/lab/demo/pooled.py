"""The same figures over the pooled rows, computed in clear by other code: what a federated result stands beside.

Only a laboratory can do this: it has all 740 rows in one place, straight from the heart files and not by way of FHIR.
"""

import warnings
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from paroma.data.catalogue.data_set import columns
from paroma.lab import heart
from paroma.learn.algorithms import design
from paroma.learn.algorithms.query import Drawn, Feature

F64 = npt.NDArray[np.float64]
INPUTS: Final = heart.FEATURES[:-1]
OUTCOME: Final = heart.FEATURES[-1]
FLAMBY: Final = (
    ("pooled", 0.735, 0.795),
    ("FedAdagrad, FedYogi", 0.731, 0.779),
    ("FedAdam", 0.726, 0.779),
    ("best local", 0.722, 0.784),
    ("Cyclic", 0.718, 0.785),
    ("FedAvg, FedProx", 0.685, 0.748),
)
"""FLamby's Fed-Heart-Disease: method, accuracy as mean of sites, accuracy on the pooled test rows (owkin/FLamby, edacf54d)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """coefficients, errors: (terms,), of the scaled inputs, intercept first."""

    coefficients: F64
    errors: F64


class Pooled:
    """The 740 complete rows of all four hospitals."""

    def __init__(self) -> None:
        self.features = {f.name: f for f in msgspec.convert(columns(heart.data_set()), tuple[Feature, ...])}
        table = heart.pooled()
        self.raw = {name: table[:, place] for place, name in enumerate(heart.FEATURES)}
        self.columns = {name: self._as_computed(name) for name in heart.FEATURES}
        self.x = design.matrix(self.columns, [self.features[name] for name in INPUTS])
        self.y = (self.raw[OUTCOME] > 0).astype(np.float64)

    def __len__(self) -> int:
        return len(self.y)

    def moments(self, name: str) -> tuple[float, float]:
        """Mean and variance (n - 1) of a number, cut to its public range as every site cuts it."""
        feature = self.features[name]
        values = np.clip(self.raw[name], feature.low, feature.high)
        return float(values.mean()), float(values.var(ddof=1))

    def counts(self, name: str) -> dict[str, int]:
        """How many rows have each level of a category, or `no` and `yes`."""
        feature = self.features[name]
        levels = (
            {"no": 0.0, "yes": 1.0} if feature.kind == "truth" else {level: float(level) for level in feature.levels}
        )
        return {label: int((self.raw[name] == value).sum()) for label, value in levels.items()}

    def fit(self) -> Fit:
        """Unpenalised logistic regression by statsmodels, then Newton until it stands still."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # statsmodels warns of what it imports, not of the fit
            import statsmodels.api as sm

            b = np.asarray(sm.Logit(self.y, self.x).fit(method="newton", tol=1e-14, maxiter=50, disp=0).params)
        for _ in range(5):
            p = 1 / (1 + np.exp(-self.x @ b))
            hessian = (self.x * (p * (1 - p))[:, None]).T @ self.x
            b = b + np.linalg.solve(hessian, self.x.T @ (self.y - p))
        return Fit(coefficients=b, errors=np.sqrt(np.diag(np.linalg.inv(hessian))))

    def judge(self, coefficients: tuple[float, ...], rows: Drawn) -> tuple[int, float, float]:
        """Rows, accuracy and AUROC (ties count half) of given coefficients on the rows that `rows` draws."""
        chosen = design.selected(self.columns, rows, len(self))
        score, truth = self.x[chosen] @ np.array(coefficients), self.y[chosen] > 0
        with_it, without = score[truth][:, None], score[~truth][None, :]
        ranked = (with_it > without).mean() + (with_it == without).mean() / 2
        return int(chosen.sum()), float(((score > 0) == truth).mean()), float(ranked)

    def _as_computed(self, name: str) -> F64:
        """A category as places of its levels, as a site's worker sees it."""
        feature, values = self.features[name], self.raw[name]
        if feature.kind != "category":
            return values
        places = {float(level): float(place) for place, level in enumerate(feature.levels)}
        return np.array([places[value] for value in values])
