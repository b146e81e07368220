"""What a run asks, whoever answers it: the platform's algorithms and Flower apps behind one protocol, `Asking`.

Made by `asking` from a query, the descriptions of a data set and a permit; the same at the hub and at every site. Imports
neither pyarrow nor flwr: what a worker is told is `work`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paroma.kernel.errors import BadInput
from paroma.kernel.wire import framing
from paroma.learn.algorithms import plan as algorithms, query as queries
from paroma.learn.algorithms.logistic import GRADIENT, LIKELIHOOD
from paroma.learn.algorithms.plan import Plan
from paroma.learn.algorithms.query import Evaluate, Feature, Logistic, Result, Statistics
from paroma.learn.disclosure.door import PUBLIC
from paroma.learn.flower import contribution as flower, rule
from paroma.learn.flower.contribution import Averaged, ModelForeign
from paroma.learn.flower.messages import Exchange, FlowerApp, TrainedModel
from paroma.learn.secagg.layout import Layout
from paroma.trust.permit.permit import Permit

Query = queries.Query | FlowerApp
Step = queries.Step | Exchange
Answer = Result | TrainedModel
MOST_QUERY = 64 << 10  # bytes


class Asking(Protocol):
    """A query under its permit. A step is one question to all sites, a total the unmasked sum of what they gave."""

    @property
    def algorithm(self) -> str:
        """As permits name it."""

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are read, in order."""

    @property
    def selection(self) -> str:
        """Which rows it is about, hex; empty for all."""

    @property
    def steps(self) -> int:
        """Questions at most."""

    def first(self) -> Step | None:
        """What is asked first; None where an app says it."""

    def layout(self, step: Step) -> Layout:
        """The fields of a contribution."""

    def question(self, step: Step) -> str:
        """Hex digest: what attempts, budget and memory know the question by."""

    def check(self, asked: Step, number: int, before: tuple[Step, bytes] | None) -> None:
        """Whether this is what may be asked as question `number`, from 1. before: the last step, and its sum. Raises
        BadInput.
        """

    def advance(self, step: Step, total: bytes) -> Step | Averaged | Answer:
        """What follows from a sum: the next step; a model, after which an app says what is next; or the answer."""

    def measured(self, step: Step, total: bytes) -> float | None:
        """How far it is, as `measure` says; None where there is no such figure."""

    def measure(self) -> str:
        """What `measured` is."""

    def described(self) -> str:
        """The query as a scientist would write it."""


class StepForeign(BadInput):
    """The step does not belong to the query."""

    def __init__(self) -> None:
        super().__init__("the step does not belong to the query", do="ask with the query's own step")


def asking(query: Query, features: Sequence[Feature], permit: Permit) -> Asking:
    """Check `query`. features: the data set's descriptions. Raises what `algorithms.plan` and `flower.plan` raise."""
    if isinstance(query, FlowerApp):
        return OfApp(plan=flower.plan(query, [feature.name for feature in features], permit))
    return OfPlatform(plan=algorithms.plan(query, features, permit))


def unpack_query(data: bytes) -> Query:
    """A query, read strictly. Raises Malformed."""
    query: Query = framing.unpack(data, Query, MOST_QUERY)
    return query


def unpack_step(data: bytes) -> Step:
    """A step, read strictly. Raises Malformed."""
    step: Step = framing.unpack(data, Step, flower.MOST_EXCHANGE)
    return step


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPlatform:
    """A query that the platform's own algorithms answer."""

    plan: Plan

    @property
    def algorithm(self) -> str:
        """As permits name it."""
        return "statistics" if isinstance(self.plan.query, Statistics) else "logistic"

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(feature.name for feature in self.plan.features)

    @property
    def selection(self) -> str:
        """Which rows it is about."""
        return algorithms.selection(self.plan)

    @property
    def steps(self) -> int:
        """Questions at most."""
        return self.plan.query.steps if isinstance(self.plan.query, Logistic) else 1

    def first(self) -> Step | None:
        """What is asked first."""
        return algorithms.first(self.plan)

    def layout(self, step: Step) -> Layout:
        """The fields of a contribution."""
        return algorithms.layout(self.plan, _platform(step))

    def question(self, step: Step) -> str:
        """Its digest."""
        return algorithms.question(self.plan, _platform(step))

    def check(self, asked: Step, number: int, before: tuple[Step, bytes] | None) -> None:
        """Everything but the very step that follows is refused."""
        if number == 1 or before is None:
            expected: object = algorithms.first(self.plan)
        else:
            expected = algorithms.advance(self.plan, _platform(before[0]), before[1])
        if asked != expected:
            raise ModelForeign(
                "the model that was sent does not follow from the last sum", do="send what the permit's algorithm gives"
            )

    def advance(self, step: Step, total: bytes) -> Step | Averaged | Answer:
        """The next step, or the answer."""
        return algorithms.advance(self.plan, _platform(step), total)

    def measured(self, step: Step, total: bytes) -> float | None:
        """Mean log loss, or the length of the noisy mean gradient; None for one question."""
        if not isinstance(self.plan.query, Logistic):
            return None
        numbers = self.layout(step).decode(total)
        patients = max(float(numbers[PUBLIC][0]), 1.0)
        if LIKELIHOOD in numbers:
            return -float(numbers[LIKELIHOOD][0]) / patients
        return float(np.linalg.norm(numbers[GRADIENT])) / patients

    def measure(self) -> str:
        """What `measured` is."""
        if not isinstance(self.plan.query, Logistic):
            return ""
        return "mean log loss" if self.plan.permit.privacy is None else "length of the noisy mean gradient"

    def described(self) -> str:
        """The query as a scientist would write it."""
        match self.plan.query:
            case Statistics() as query:
                return ", ".join(query.features)
            case Logistic() as query:
                ridge = f", ridge {query.ridge:g}" if query.ridge else ""
                return f"{query.outcome.feature} ~ {' + '.join(query.features)}{ridge}"
            case Evaluate() as query:
                return f"{query.outcome.feature} ~ {' + '.join(query.features)}, judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfApp:
    """A Flower app. Its server part, in the hub's worker, says what is asked; the mean of a sum is the platform's."""

    plan: flower.Plan

    @property
    def algorithm(self) -> str:
        """As permits name it."""
        return "flower"

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are read, in the order in which the app finds them."""
        return self.plan.features

    @property
    def selection(self) -> str:
        """Always all rows."""
        return ""

    @property
    def steps(self) -> int:
        """Rounds at most."""
        return self.plan.rounds

    def first(self) -> Step | None:
        """The app says it."""
        return None

    def layout(self, step: Step) -> Layout:
        """Rows, weight, and weight x change."""
        return flower.layout(self.plan, _exchange(step))

    def question(self, step: Step) -> str:
        """Its digest."""
        return flower.question(self.plan, _exchange(step))

    def check(self, asked: Step, number: int, before: tuple[Step, bytes] | None) -> None:
        """The first model is the app's; every later one is the mean of the last sum."""
        if number > 1 and before is None:
            raise ModelForeign("the sum of the round before never came", do="send the sums in order")
        flower.check(self.plan, _exchange(asked), number, before and (_exchange(before[0]), before[1]))

    def advance(self, step: Step, total: bytes) -> Step | Averaged | Answer:
        """The model after this round."""
        return flower.advance(self.plan, _exchange(step), total)

    def measured(self, step: Step, total: bytes) -> float | None:
        """How far the model moved: the length of the mean change."""
        now = _exchange(step)
        change = rule.vector(flower.advance(self.plan, now, total).model) - rule.vector(now.model)
        return float(np.linalg.norm(change))

    def measure(self) -> str:
        """What `measured` is."""
        return "length of the mean change"

    def described(self) -> str:
        """The query as a scientist would write it."""
        return f"Flower app {self.plan.query.code[:12]} on {', '.join(self.features)}"


def _platform(step: Step) -> queries.Step:
    if isinstance(step, Exchange):
        raise StepForeign
    return step


def _exchange(step: Step) -> Exchange:
    if not isinstance(step, Exchange):
        raise StepForeign
    return step
