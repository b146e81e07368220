"""What a seed decides: who asks what, and everything that goes wrong meanwhile.

Half of the seeds have few troubles, so that a course gets far; each kind of trouble is absent in some. From `Plot.calm` on nothing
goes wrong any more. One kind of trouble comes alone, as it excuses others: a hub that lies.
"""

import random
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Final

from paroma.kernel.ids import PatientId
from paroma.lab.simulation.app import ROUNDS
from paroma.lab.simulation.disk import Fault
from paroma.lab.simulation.federation import HOSPITALS, HUB
from paroma.lab.simulation.founding import FEATURES, Founded
from paroma.lab.simulation.network import Faults
from paroma.learn.algorithms.query import Logistic, Outcome, Statistics
from paroma.learn.flower.messages import FlowerApp
from paroma.learn.runs.question import Query

KILLS: Final = {Fault.KILL_BEFORE: 1.0, Fault.KILL_AFTER: 1.0}
ERRORS: Final = {Fault.FAILS_BEFORE: 1.0, Fault.FAILS_AFTER: 1.0, Fault.FULL: 0.5}


class Lie(Enum):
    """What a lying hub does to what it sends."""

    PROPOSALS = "other sets are proposed to some sites"
    SIGNATURES = "a set is handed out as complete that one member has not signed"
    MODEL = "some sites are asked with another model"
    SUM = "some sites are told another sum"
    AGAIN = "an earlier message of the run is sent in place of the next"


class Part(Enum):
    """What of a site is brought back from an older copy."""

    DATABASE = "the database"
    VAULT = "the vault's folder"
    BOTH = "database and vault together"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens `at` virtual seconds after the first question. what: kill, cut, withdraw or restore.

    lasting: of a cut, or between the copy that is made and its coming back, s.
    """

    at: float
    what: str
    where: str
    lasting: float = 0.0
    patient: PatientId | None = None
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that the scientist asks. private: under the permit with differential privacy."""

    query: Query
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What a seed decided. lies: to which sites the hub lies, and how."""

    faults: Faults
    disk_chances: dict[str, dict[Fault, float]]
    downtime: float
    slowest_worker: float
    calm: float
    events: tuple[Event, ...]
    asked: tuple[Asked, ...]
    lies: tuple[Lie, ...] = ()
    lied_to: tuple[str, ...] = ()

    def troubles(self, name: str) -> bool:
        """Whether anything keeps the site `name` from what it does: beside patients, and what was brought back."""
        touched = {event.where for event in self.events if event.what in {"kill", "cut"}} | set(self.disk_chances)
        return bool(self.faults.lose_request or self.faults.lose_reply or touched & {name, HUB})

    def kinds(self) -> Counter[str]:
        """The kinds of trouble and of question in it, once each."""
        chances = {fault for kinds in self.disk_chances.values() for fault in kinds}
        kinds = {
            "a lost request": self.faults.lose_request > 0,
            "a lost reply": self.faults.lose_reply > 0,
            "a doubled request": self.faults.double > 0,
            "reordering": self.faults.most_delay >= 0.05,  # s; more than what lies between two requests
            "a failing disk": bool(chances & set(ERRORS)),
            "a kill at a write": bool(chances & set(KILLS)),
            "a kill of the hub": any(e.what == "kill" and e.where == HUB for e in self.events),
            "a kill of a site": any(e.what == "kill" and e.where != HUB for e in self.events),
            "a cut": any(e.what == "cut" for e in self.events),
            "a withdrawal": any(e.what == "withdraw" for e in self.events),
            "nothing wrong": not self.events and not chances and not self.lies,
            "privacy": any(one.private for one in self.asked),
            "exact statistics": any(isinstance(one.query, Statistics) and not one.private for one in self.asked),
            "a regression": any(isinstance(one.query, Logistic) for one in self.asked),
            "an app": any(isinstance(one.query, FlowerApp) for one in self.asked),
        }
        kinds |= {f"an older copy of {part.value}": any(e.part is part for e in self.events) for part in Part}
        kinds |= {f"a lie: {lie.value}": lie in self.lies for lie in Lie}
        return Counter(kind for kind, there in kinds.items() if there)


def plot_of(seed: int, founded: Founded) -> Plot:
    """What the seed decides."""
    draw = random.Random(f"{seed}/plot")
    rough = draw.random() < 0.5
    faults = Faults(
        least_delay=0.001,
        most_delay=draw.choice([0.005, 0.05, 0.4]),
        lose_request=draw.choice([0.0, 0.03, 0.15]) if rough else 0.0,
        lose_reply=draw.choice([0.0, 0.03, 0.15]) if rough else 0.0,
        double=draw.choice([0.0, 0.1]),
    )
    chances: dict[str, dict[Fault, float]] = {}
    for name in draw.sample((HUB, *HOSPITALS), draw.choice([0, 0, 1, 2])):
        kinds = draw.choice([KILLS, ERRORS])
        rate = draw.choice([0.01, 0.05])
        chances[name] = {fault: rate * share for fault, share in kinds.items()}
    events = [
        Event(draw.uniform(0, 4), "kill", name) for name in draw.choices((HUB, *HOSPITALS), k=draw.choice([0, 1, 2]))
    ]
    events += [
        Event(draw.uniform(0, 4), "cut", name, lasting=draw.choice([0.5, 5.0, 15.0]))
        for name in draw.choices(HOSPITALS, k=draw.choice([0, 0, 1, 2]))
    ]
    for name in draw.choices(HOSPITALS, k=draw.choice([0, 1, 2, 3])):
        patient = draw.choice(founded.patients[name])
        events.append(Event(draw.uniform(0, 3), "withdraw", name, patient=patient))
    lies: tuple[Lie, ...] = ()
    special = draw.random()
    if special < 0.15:  # share of seeds in which one site is brought back from a copy
        at, part = draw.uniform(0, 2), draw.choice(list(Part))
        events.append(Event(at, "restore", draw.choice(HOSPITALS), lasting=draw.uniform(0.5, 4), part=part))
    elif special < 0.3:  # share of seeds in which the hub lies, or a copy comes back
        lies = tuple(draw.sample(list(Lie), draw.choice([1, 1, 2])))
        chances, events = {}, [event for event in events if event.what == "withdraw"]
    return Plot(
        faults=faults,
        disk_chances=chances,
        downtime=draw.choice([0.5, 5.0, 20.0]),
        slowest_worker=draw.choice([0.01, 0.3, 1.0]),
        calm=draw.choice([5.0, 10.0, 30.0]),
        events=tuple(sorted(events, key=lambda one: one.at)),
        asked=_asked(draw, founded)[: 1 if lies else None],
        lies=lies,
        lied_to=tuple(draw.sample(HOSPITALS, draw.choice([1, 2]))) if lies else (),
    )


def _asked(draw: random.Random, founded: Founded) -> tuple[Asked, ...]:
    statistics = Statistics(features=("age", "chol"), bins=4)
    logistic = Logistic(outcome=Outcome(feature="num"), features=("age",), ridge=1.0, steps=2)
    app = FlowerApp(code=founded.code, features=FEATURES, rounds=ROUNDS)
    kind = draw.random()
    if kind < 0.5:  # shares of the seeds, of this line and the next ones
        return (Asked(statistics),)
    if kind < 0.75:
        return (Asked(statistics, private=True),) * draw.choice([1, 1, 2, 4])
    if kind < 0.9:
        return (Asked(app),)
    return (Asked(logistic, private=draw.random() < 0.3),)
