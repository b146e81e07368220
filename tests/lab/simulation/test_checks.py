"""Every check of a course is shown a defect that it has to see."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
from msgspec import structs

from paroma.kernel.blocking import Inline
from paroma.kernel.disk import SystemDisk
from paroma.kernel.ids import PersonId, SiteId
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.store.database import open_store
from paroma.lab.simulation import checks, sums
from paroma.lab.simulation.federation import HOSPITALS
from paroma.lab.simulation.founding import PRIVACY, WISH
from paroma.lab.simulation.liveness import BUDGET, FINISHED
from paroma.lab.simulation.network import QUIET
from paroma.lab.simulation.plot import Asked, Event, Lie, Part, Plot
from paroma.lab.simulation.story import play
from paroma.learn.algorithms.query import Statistics
from paroma.learn.disclosure import ledger
from paroma.learn.dp import bound
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.trust.audit import log as logs
from paroma.trust.audit.entries import Entry
from paroma.trust.permit.permit import Participant
from paroma.trust.permit.wish import permit_of

AGES = Statistics(features=("age", "chol"), bins=4)


def course(*events, private=0, **more):
    """A course in which only this happens: one question, or `private` ones under differential privacy."""
    asked = (Asked(AGES, private=True),) * private or (Asked(AGES),)
    quiet = {"faults": QUIET, "disk_chances": {}, "downtime": 0.5, "slowest_worker": 0.3, "calm": 5.0}
    return Plot(**(quiet | {"events": events, "asked": asked} | more))


def withdrawals(founded, at):
    return [
        Event(at + k / 10, "withdraw", name, patient=founded.patients[name][0]) for k, name in enumerate(HOSPITALS[:2])
    ]


class Lossy:
    """A site log that leaves out one kind of entry, and says that it wrote it."""

    def __init__(self, journal, kind):
        self.journal, self.kind = journal, kind

    def write(self, tx, kind, **facts):
        return 10**6 if kind == self.kind else self.journal.write(tx, kind, **facts)

    def __getattr__(self, name):
        return getattr(self.journal, name)


class Free:
    """A budget that is never debited durably."""

    def __init__(self, kept):
        self.kept = kept

    def reserve(self, wish):
        _, state = self.kept._load()
        return ledger.reserve(state, wish)[1]

    def __getattr__(self, name):
        return getattr(self.kept, name)


def forgets_withdrawals(site):
    site.journal = Lossy(site.journal, "withdrawal")


def hides_votes(site):
    site.rounds._p.journal = Lossy(site.rounds._p.journal, "vote-signed")


def asks_nobody(site):
    site.rounds._clean = lambda _tx, _row: lambda: True


def debits_nothing(site):
    site.rounds._p.budget = Free(site.rounds._p.budget)


def declines_for_no_reason(site):
    site.rounds._clean = lambda _tx, _row: lambda: False


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("defect", "says", "private"),
    [
        pytest.param(forgets_withdrawals, "acknowledged withdrawal", 0, id="a no that is not written"),
        pytest.param(hides_votes, "never voted", 0, id="a vote that is in no log"),
        pytest.param(debits_nothing, "the ledger does not know", 0, id="a debit that is not durable"),
        pytest.param(debits_nothing, "read 1 times and debited 0 times", 1, id="privacy that costs nothing"),
        pytest.param(declines_for_no_reason, "no rule says why not", 0, id="a run that fails for no reason"),
    ],
)
def test_a_planted_defect_is_seen(founded, defect, says, private):
    plot = course(*withdrawals(founded, 0.5), private=private)
    seen = play(1, founded, defect=defect, plot=plot)
    assert any(says in line for line in seen.wrong), seen.wrong
    assert not play(1, founded, plot=plot).wrong


@pytest.mark.promise(2)
def test_a_vote_that_does_not_ask_for_withdrawals_is_caught(founded):
    caught = (
        seed
        for seed in range(40)
        if any(
            "withdrew before" in line
            for line in play(
                seed, founded, defect=asks_nobody, plot=course(*withdrawals(founded, 0.4 + seed / 20))
            ).wrong
        )
    )
    assert next(caught, None) is not None


@pytest.mark.promise(4)
def test_a_budget_that_is_spent_ends_the_run_and_is_named(founded):
    seen = play(2, founded, plot=course(private=4))
    assert not seen.wrong
    assert sorted(seen.why.values()) == sorted([FINISHED] * 3 + [BUDGET])


@pytest.mark.promise(4)
@pytest.mark.parametrize("part", Part, ids=lambda part: part.value)
def test_a_site_that_comes_back_from_an_older_copy_takes_no_part_in_anything(founded, part):
    copied = Event(0.1, "restore", "cleveland", lasting=2.5, part=part)
    seen = play(3, founded, plot=course(copied, *withdrawals(founded, 0.3), private=2))
    assert not seen.wrong
    if part is not Part.BOTH:  # both together are older than what the hub remembers, and the hub says so
        assert any(line.startswith("cleveland:") for line in seen.refused), seen.refused


@pytest.mark.promise(1)
@pytest.mark.parametrize("lie", Lie, ids=lambda lie: lie.value)
def test_a_hub_that_lies_to_two_sites_breaks_no_promise(founded, lie):
    plot = course(*withdrawals(founded, 0.5), lies=(lie,), lied_to=("cleveland", "va"))
    seen = [play(seed, founded, plot=plot) for seed in (4, 5)]
    assert not [line for one in seen for line in one.wrong]
    assert sum(one.lies for one in seen) > 0


def said(number, kind, **facts):
    return Entry(kind=kind, at=0.0, facts=facts, number=number, sealed=b"")


@pytest.mark.parametrize(
    ("log", "says"),
    [
        pytest.param(["vote-signed one", "answer-given one", "answer-given two"], "answered", id="answered twice"),
        pytest.param(["answer-given one", "vote-signed two"], "voted again", id="a vote after an answer"),
        pytest.param(["vote-declined one", "vote-signed one"], "had declined", id="a vote after a no"),
        pytest.param(["vote-signed one", "answer-given one", "answer-given one"], "", id="the same answer again"),
    ],
)
def test_what_a_site_may_not_answer_is_seen_in_its_log(log, says):
    entries = [said(number, line.split()[0], entry=line.split()[1]) for number, line in enumerate(log)]
    wrong = []
    checks._answers(entries, {"one": ("run", 1), "two": ("run", 1)}, wrong, "va")
    assert (says in wrong[0]) if says else not wrong


def test_noise_that_is_missing_or_too_wide_is_seen(founded):
    four = tuple(Participant(site=SiteId(name), owner=name) for name in HOSPITALS)
    permit = permit_of(
        structs.replace(WISH, privacy=PRIVACY),
        permit=founded.private,
        study=founded.study,
        applicant=PersonId("somebody"),
        participants=four,
        now=0.0,
    )
    drawn = DiscreteGaussian(SeededRandomness(1, "noise")).draw(bound.share(permit, PRIVACY).sigma, 400)
    good = np.concatenate([[0], sum(np.split(drawn, 4))])
    assert sums.unlike_noise(good, permit, 4) == ""
    assert "there is no noise" in sums.unlike_noise(good * 0, permit, 4)
    assert "further from" in sums.unlike_noise(good * 30, permit, 4)
    assert "number of patients" in sums.unlike_noise(good + 1, permit, 4)


def test_a_head_that_was_shown_and_is_no_beginning_of_the_log_is_seen(founded):
    with closing(open_store(f"sqlite:///{founded.folder / 'hub' / 'hub.db'}", Inline(), SystemDisk())) as store:
        head = store.read_now(lambda tx: logs.checkpoint(tx, logs.FEDERATION))
        for seen, is_seen in (
            (head, False),
            (dataclasses.replace(head, root=bytes(32)), True),
            (dataclasses.replace(head, size=head.size + 1), True),
        ):
            wrong = []
            checks._beginning(store, logs.FEDERATION, seen, None, wrong, "what was shown")
            assert bool(wrong) is is_seen
