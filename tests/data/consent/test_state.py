import asyncio

import pytest

from paroma.data.consent import state
from paroma.data.consent.purposes import ACT_REASON, Coding
from paroma.data.consent.statement import EVERYTHING, Override, Rule, Scope, Statement, Use
from paroma.data.consent.tables import METADATA
from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.store.database import StoreUnavailable

USE = Use(purpose="scientific-research", study="study-1")
RULE = Rule(type="permit", purposes=(Coding(ACT_REASON, "HRESCH"),))
DRAW = SeededRandomness(1)


def consent(patient, rule=RULE, *, name="c", active=True):
    return Statement(id=f"{name}-{patient}", patient=patient, given=10.0, active=active, rule=rule)


@pytest.fixture
def tx(store):
    """Runs a function in a transaction."""
    METADATA.create_all(store.engine)
    store.write_now(lambda t: state.put_statements(t, [consent(p) for p in ("anna", "bela", "cora")], 1.0))
    return store.write_now


def allowed(tx, patient="anna", use=USE, at=100.0):
    return tx(lambda t: state.verdicts(t, use, at, [patient]))(patient).allowed


@pytest.mark.promise(2)
def test_a_no_counts_from_its_transaction_on_and_a_yes_brings_back(tx):
    assert allowed(tx)
    made = tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 50.0, DRAW))
    assert (made.says, made.at, made.seq) == ("no", 50.0, 4)
    assert not allowed(tx)
    assert allowed(tx, "bela")
    tx(lambda t: state.give(t, "anna", EVERYTHING, 60.0, DRAW))
    assert allowed(tx)
    assert [c.says for c in tx(lambda t: state.choices_of(t, "anna"))] == ["yes", "no"]
    assert tx(lambda t: state.choice(t, made.number)) == made
    assert tx(lambda t: state.choice(t, "NONE-NONE")) is None


@pytest.mark.promise(2)
def test_a_no_to_one_study_leaves_the_others(tx):
    tx(lambda t: state.withdraw(t, "anna", Scope("study", "study-1"), 50.0, DRAW))
    assert not allowed(tx)
    assert allowed(tx, use=Use(purpose="scientific-research", study="study-2"))
    tx(lambda t: state.withdraw(t, "anna", Scope("study", "study-2"), 51.0, DRAW))
    tx(lambda t: state.give(t, "anna", Scope("study", "study-1"), 52.0, DRAW))
    assert allowed(tx)
    assert not allowed(tx, use=Use(purpose="scientific-research", study="study-2"))


@pytest.mark.promise(2)
def test_a_yes_to_a_study_does_not_undo_a_no_to_everything(tx):
    tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 50.0, DRAW))
    tx(lambda t: state.give(t, "anna", Scope("study", "study-1"), 51.0, DRAW))
    assert not allowed(tx)


def test_every_change_has_a_number_and_the_numbers_grow_by_one(tx):
    assert tx(state.sequence) == 3
    numbers = [tx(lambda t, p=p: state.withdraw(t, p, EVERYTHING, 1.0, DRAW)).seq for p in ("anna", "bela", "anna")]
    assert numbers == [4, 5, 6]
    assert tx(lambda t: state.changed_since(t, 4)) in {("anna", "bela"), ("bela", "anna")}


def test_statements_that_are_already_there_change_nothing(tx):
    assert tx(lambda t: state.put_statements(t, [consent("anna")], 2.0)) == ()
    assert tx(state.sequence) == 3
    assert tx(lambda t: state.put_statements(t, [consent("anna", active=False)], 2.0)) == ("anna",)
    assert not allowed(tx)
    assert [s.active for s in tx(lambda t: state.statements_of(t, "anna"))] == [False]


def taint(tx, since, patients=("anna", "bela"), at=100.0, use=USE):
    return tx(lambda t: state.tainted(t, use, patients, since=since, at=at))


@pytest.mark.promise(2)
def test_the_commit_is_told_who_withdrew_since_the_reading(tx):
    read_at = tx(state.sequence)
    assert taint(tx, read_at) == ()
    tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 50.0, DRAW))
    assert taint(tx, read_at) == ("anna",)
    assert taint(tx, read_at, ("bela",)) == ()
    assert taint(tx, tx(state.sequence)) == ()  # the control: whoever forgets the number of the reading misses it


@pytest.mark.promise(2)
def test_a_no_since_the_reading_counts_even_when_a_yes_followed_it(tx):
    read_at = tx(state.sequence)
    tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 50.0, DRAW))
    tx(lambda t: state.give(t, "anna", EVERYTHING, 51.0, DRAW))
    assert allowed(tx)
    assert taint(tx, read_at) == ("anna",)


@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("change", "who"),
    [
        pytest.param(
            lambda t: state.put_statements(t, [consent("anna", active=False)], 2.0), ("anna",), id="consent ended"
        ),
        pytest.param(
            lambda t: state.put_statements(t, [consent("anna", None, name="x")], 2.0), ("anna",), id="not computable"
        ),
        pytest.param(lambda t: state.forget(t, ["anna"], 2.0), ("anna",), id="erased"),
        pytest.param(lambda t: state.withdraw(t, "anna", Scope("study", "study-9"), 2.0, DRAW), (), id="another study"),
        pytest.param(
            lambda t: state.put_statements(t, [consent("anna", name="more")], 2.0), (), id="consented once more"
        ),
        pytest.param(
            lambda t: state.put_override(
                t, Override(id="o", purpose="statistics", study="", law="L", starts=0.0, ends=1e9), 2.0
            ),
            (),
            id="an order about something else",
        ),
    ],
)
def test_whatever_changed_since_the_reading_is_judged_again(tx, change, who):
    read_at = tx(state.sequence)
    tx(change)
    assert taint(tx, read_at) == who


@pytest.mark.promise(2)
def test_when_an_order_of_the_law_ends_everybody_is_judged_again(tx):
    order = Override(id="o", purpose="scientific-research", study="", law="Law", starts=0.0, ends=1e9)
    tx(lambda t: state.put_override(t, order, 2.0))
    assert tx(lambda t: state.verdicts(t, USE, 5.0))("stranger").rule == "override: Law"
    read_at = tx(state.sequence)
    tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 3.0, DRAW))
    assert taint(tx, read_at) == ()  # the law orders it whatever she says
    ended = Override(id="o", purpose="scientific-research", study="", law="Law", starts=0.0, ends=4.0)
    tx(lambda t: state.put_override(t, ended, 4.0))
    assert tx(lambda t: state.changed_since(t, read_at)) is None
    assert taint(tx, read_at, ("anna", "bela", "stranger")) == ("anna", "stranger")


@pytest.mark.parametrize("change", [{"purpose": "marketing"}, {"ends": 0.0}])
def test_an_order_of_the_law_has_a_known_purpose_and_a_period(tx, change):
    good = {"id": "o", "purpose": "statistics", "study": "", "law": "L", "starts": 0.0, "ends": 1.0}
    with pytest.raises(BadInput):
        tx(lambda t: state.put_override(t, Override(**(good | change)), 0.0))


def test_forgetting_leaves_nothing_that_was_said(tx):
    tx(lambda t: state.withdraw(t, "anna", EVERYTHING, 1.0, DRAW))
    tx(lambda t: state.forget(t, ["anna"], 2.0))
    assert tx(lambda t: state.statements_of(t, "anna")) == ()
    assert tx(lambda t: state.choices_of(t, "anna")) == ()
    assert not allowed(tx)
    tx(lambda t: state.prune(t, 100))
    assert tx(lambda t: state.changed_since(t, 0)) == ()


def test_everybody_and_some_come_out_alike_and_the_next_edge_is_named(tx):
    ending = Rule(type="permit", purposes=RULE.purposes, ends=200.0)
    tx(lambda t: state.put_statements(t, [consent(f"p{i}", ending) for i in range(1200)], 1.0))
    everybody = tx(lambda t: state.verdicts(t, USE, 100.0))
    some = tx(lambda t: state.verdicts(t, USE, 100.0, [f"p{i}" for i in range(1100)]))
    assert len(everybody.by_patient) == 1203
    assert everybody.next_change == some.next_change == 200.0
    assert all(some(f"p{i}") == everybody(f"p{i}") and some(f"p{i}").allowed for i in range(1100))
    later = tx(lambda t: state.verdicts(t, USE, 200.0))
    assert not later("p1").allowed
    assert later("anna").allowed
    assert later.next_change is None
    assert not later("nobody").allowed


@pytest.mark.promise(2)
@pytest.mark.parametrize(("how", "stands"), [("nothing", True), ("left", False)])
def test_a_withdrawal_that_could_not_be_written_is_not_acknowledged(new_store, faulty_disk, how, stands):
    store = new_store(disk=faulty_disk)
    METADATA.create_all(store.engine)
    store.write_now(lambda t: state.put_statements(t, [consent("anna")], 1.0))
    faulty_disk.arm(1, how)
    with pytest.raises(StoreUnavailable):
        store.write_now(lambda t: state.withdraw(t, "anna", EVERYTHING, 50.0, DRAW))
    faulty_disk.arm(0, how)
    assert allowed(store.write_now) is stands
    store.write_now(lambda t: state.withdraw(t, "anna", EVERYTHING, 51.0, DRAW))  # repeating is safe
    assert not allowed(store.write_now)


@pytest.mark.promise(2)
def test_withdrawals_and_commits_that_race_are_in_one_order(store):
    METADATA.create_all(store.engine)
    people = [f"p{i}" for i in range(20)]
    store.write_now(lambda t: state.put_statements(t, [consent(p) for p in people], 1.0))

    async def race():
        read_at = await store.read(state.sequence)

        async def out(patient):
            made = await store.write(
                lambda t: state.withdraw(t, patient, EVERYTHING, 2.0, SeededRandomness(3, patient))
            )
            return made.seq

        async def commit():
            return await store.write(
                lambda t: (state.sequence(t), state.tainted(t, USE, people, since=read_at, at=3.0))
            )

        return await asyncio.gather(*(f for p in people for f in (out(p), commit())))

    answers = asyncio.run(race())
    numbers = dict(zip(people, answers[::2], strict=True))
    assert sorted(numbers.values()) == list(range(21, 41))
    for seq, who in answers[1::2]:
        assert set(who) == {p for p in people if numbers[p] <= seq}
