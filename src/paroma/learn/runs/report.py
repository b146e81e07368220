"""What is told about a run to the people who may see it: no hospital's own figure, no one who sat out, no exact cohort.

The hub writes these and a person's program reads them: fields that a newer hub adds are passed over.
"""

from typing import Literal

import msgspec

from paroma.kernel.ids import PermitId, RunId, StudyId
from paroma.learn.algorithms.query import Result
from paroma.learn.flower.messages import TrainedModel

Status = Literal["waiting", "running", "paused", "finished", "failed", "stopped"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One question answered. at: unix s. value: what `RunReport.measure` says, where the algorithm has one."""

    step: int
    at: float
    value: float | None = None


class SiteSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A hospital that the run invited. online: whether it is connected now."""

    title: str
    online: bool


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Where the federation log tells of the run. cosigned: how many participants have seen these entries; None: not yet a quorum."""

    first: int
    last: int
    cosigned: int | None


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the run's story, as the log has it. what: a sentence. at: unix s."""

    what: str
    at: float
    entry: int


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a scientist sees it. revision grows with every change, so that a client can wait for the next.

    measure: what `progress` measures, such as `mean log loss`. numbers: how many numbers one question's sum has.
    steps: questions that the run may still ask for at most, in all. epsilon, delta: spent so far, None without privacy.
    """

    run: RunId
    permit: PermitId
    study: StudyId
    title: str
    algorithm: str
    query: str
    status: Status
    reason: str
    opened: float
    ended: float | None
    revision: int
    step: int
    steps: int
    measure: str
    progress: tuple[Progress, ...]
    result: Result | TrainedModel | None
    numbers: int
    private: bool
    epsilon: float | None
    delta: float | None
    most_epsilon: float | None
    least_owners: int
    sites: tuple[SiteSeen, ...]
    story: tuple[Happened, ...]
    proof: Proof | None
