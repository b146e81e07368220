"""What a site tells its worker for one question, and how the worker's reply becomes an update."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paroma.kernel.errors import Unavailable
from paroma.kernel.ids import PatientId
from paroma.kernel.wire import framing
from paroma.learn.algorithms import plan as algorithms, worker
from paroma.learn.algorithms.names import COMPUTE
from paroma.learn.disclosure.door import Update
from paroma.learn.flower import contribution as flower
from paroma.learn.flower.messages import Exchange
from paroma.learn.flower.names import TRAIN
from paroma.learn.runs.question import Asking, OfApp, OfPlatform, Step, StepForeign


class AppMissing(Unavailable):
    """The permit names an app whose bundle this site does not hold."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the app `{code[:12]}` is not at this site", do="apply anew, which brings it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the question is asked. site: this one's number among the participants, from 1. patients: the cohort's, in row
    order. alive: their consent bits before the task. bundle: of the app that the permit names, if there is one.
    """

    run: str
    site: int
    attempt: str
    patients: Sequence[PatientId]
    alive: bytes
    bundle: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work. before, after: tables around the cohort and its live bits."""

    entry: str
    payload: bytes
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    received: Callable[[bytes], Update]


def work(asking: Asking, step: Step, place: Place) -> Work:
    """What the worker is asked. Raises AppMissing, StepForeign."""
    match asking, step:
        case OfApp(plan=app), Exchange():
            if place.bundle is None:
                raise AppMissing(app.query.code)
            return Work(
                entry=TRAIN,
                payload=flower.payload(app, step, run=place.run, site=place.site),
                before=(place.bundle,),
                after=(step.model.values,),
                received=lambda reply: flower.received(
                    reply, app, step, patients=place.patients, alive=place.alive, attempt=place.attempt
                ),
            )
        case OfPlatform(plan=plan), _ if not isinstance(step, Exchange):
            request, question = algorithms.request(plan, step), algorithms.question(plan, step)
            return Work(
                entry=COMPUTE,
                payload=framing.pack(request),
                before=(),
                after=(),
                received=lambda reply: worker.received(
                    reply, request, place.patients, attempt=place.attempt, question=question
                ),
            )
        case _:
            raise StepForeign
