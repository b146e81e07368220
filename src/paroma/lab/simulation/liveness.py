"""Why a run came to no result: the rule of the platform that says so, found in what the logs tell; or none, which is a defect.

The sentence in which the hub gives a reason is not believed: each reason has to be seen in the logs of those whom it speaks of.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import RowMapping

from paroma.hub.runs import query_of
from paroma.lab.simulation.founding import WISH, Founded
from paroma.lab.simulation.history import Course, History
from paroma.learn.flower.messages import FlowerApp
from paroma.learn.runs import messages
from paroma.trust.audit.entries import Entry

FINISHED: Final = "finished"
LIED: Final = "the hub lied"
APP_LOST: Final = "the hub was started anew, and an app's memory is lost"
OWNERS: Final = "fewer owners than the permit asks for could take part"
BUDGET: Final = "the privacy budget is spent"
COHORT: Final = "a cohort below the floor, or one that shrank by fewer than the floor"
WITHDREW: Final = "patients withdrew in every attempt"
TROUBLE: Final = "every attempt that the permit reserves fell into the troubles"
NOTICED: Final = (
    60.0  # s until everybody has noticed that the troubles are over: the longest that a request waits, and a turn
)
LATE: Final = 1e6  # s: a run that never ended
OWNERS_NEEDED: Final = 3

_SILENCES: Final = {  # how a site's own log names its reason, as the kind of the error
    "SitsOut": COHORT,
    "DifferencingRefused": COHORT,
    "CohortTooSmall": COHORT,
    "BudgetSpent": BUDGET,
    "AttemptsSpent": TROUBLE,
    "AlreadyLetOut": TROUBLE,
}


def why(
    row: RowMapping,
    shared: Sequence[Entry],
    histories: Mapping[str, History],
    founded: Founded,
    course: Course,
    *,
    hub_starts: int,
    spent: Collection[str],
) -> str | None:
    """The rule that ended the run `row` of the hub, FINISHED, or None where there is no such rule.

    spent: the sites at which no budget is left for another private question.
    """
    if row["status"] == "finished":
        return FINISHED
    if course.told:
        return LIED
    if isinstance(query_of(row), FlowerApp) and "started anew" in row["reason"] and hub_starts > 1:
        return APP_LOST
    lost = {founded.sites[name] for name, history in histories.items() if history.lost}
    private = row["permit"] == founded.private
    opened = [e for e in shared if e.kind == "attempt-opened" and e.facts["run"] == row["run"]]
    ended = course.calm + LATE if row["ended"] is None else row["ended"]
    early = ended < course.calm + NOTICED or len(founded.sites) - len(lost) < OWNERS_NEEDED
    if not opened:  # it was never set up; the troubles may have kept one away, and the copy another
        return OWNERS if early or (lost and row["opened"] < course.calm) else None
    last = [e for e in opened if e.facts["step"] == opened[-1].facts["step"]]
    if len(last) < WISH.attempts and early:
        return OWNERS
    reasons: Counter[str] = Counter()
    for attempt in last:
        entry = messages.sha256(attempt.sealed)
        found = _attempt(attempt, entry, histories, founded, course, spent if private else ())
        if found is None:
            return None
        reasons += found
    return next((named for named in (BUDGET, COHORT, WITHDREW, OWNERS, TROUBLE) if reasons[named]), None)


def _attempt(
    attempt: Entry,
    entry: str,
    histories: Mapping[str, History],
    founded: Founded,
    course: Course,
    spent: Collection[str],
) -> Counter[str] | None:
    """Why so few took part in one attempt; None where as many as are needed had no reason not to."""
    reasons: Counter[str] = Counter()
    for history in histories.values():
        sat_out = history.of("sat-out", entry=entry)
        named = _named(sat_out[0][1]) if sat_out else None
        if history.lost:
            reasons[OWNERS] += 1
        elif named == COHORT and history.name in spent:  # nobody is left who has budget
            reasons[BUDGET] += 1
        elif named is not None:
            reasons[named] += 1
        elif history.of("vote-declined", entry=entry):
            reasons[WITHDREW] += bool(history.of("withdrawal"))
        elif attempt.at < course.calm + NOTICED and course.plot.troubles(history.name):
            reasons[TROUBLE] += 1
    return reasons if len(founded.sites) - sum(reasons.values()) < int(str(attempt.facts["least"])) else None


def _named(sat_out: Entry) -> str | None:
    """The rule in a site's own words."""
    said = str(sat_out.facts["why"])
    known = _SILENCES.get(str(sat_out.facts["error"]))
    return known or (BUDGET if "budget" in said else COHORT if "floor" in said else None)
