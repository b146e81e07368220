import ast
from pathlib import Path

import numpy as np
import pytest

import paroma
from paroma.kernel.randomness import SeededRandomness
from paroma.learn.disclosure import door
from paroma.learn.disclosure.ledger import AttemptsSpent, BudgetSpent, Kept, QuestionsSpent, Receipt
from paroma.learn.dp import accountants, bound as grid
from paroma.learn.dp.bound import Bound
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.learn.secagg.layout import Field, Layout

PATIENTS = tuple(f"patient-{i}" for i in range(50))


class Memory:
    """A register in memory. `fail`: swap raises before, or after, it took effect."""

    def __init__(self, fail=None):
        self.data, self.fail = None, fail

    def read(self):
        return self.data

    def swap(self, old, new):
        if self.fail == "left nothing":
            raise OSError("disk")
        assert old == self.data
        self.data = new
        if self.fail == "left it":
            raise OSError("disk")


class Watched:
    """Records in which order the door calls what."""

    def __init__(self, ledger, noise):
        self.ledger, self.noise, self.seen = ledger, noise, []

    def reserve(self, wish):
        self.seen.append("debit")
        return self.ledger.reserve(wish)

    def draw(self, sigma, length):
        self.seen.append("noise")
        return self.noise.draw(sigma, length)


class DebitsLater:
    """A planted defect: the receipt comes before the disk has anything."""

    def __init__(self, ledger):
        self.ledger, self.due = ledger, []

    def reserve(self, wish):
        self.due.append(wish)
        return Receipt(attempt=wish.attempt, mu_squared=wish.mu_squared, number=1, head="", again=False)


class Suspicious:
    """Noise that looks whether a debit is durable whenever it is drawn."""

    def __init__(self, noise, register):
        self.noise, self.register, self.paid = noise, register, []

    def draw(self, sigma, length):
        self.paid.append(self.register.data is not None)
        return self.noise.draw(sigma, length)


def no_masks(encoded):
    return encoded


@pytest.fixture
def door_parts():
    register = Memory()
    return register, Kept(register, SeededRandomness(1)), DiscreteGaussian(SeededRandomness(2))


def update(permit, totals=(20, 3, -4), *, rows=20, patients=PATIENTS[:20], attempt="a1", question="q1", **changes):
    bound, bits, reach = None, 0, 1.0
    if permit.privacy is not None:
        share = grid.share(permit, permit.privacy)
        bound, bits, reach = share.bound, share.bound.scale_bits, 3 * permit.privacy.clipping_norm
    fields = (
        Field(name="patients", length=1, ring=64, scale_bits=0, bound=1.0),
        Field(name="gradient", length=2, ring=64, scale_bits=bits, bound=reach),
    )
    made = {
        "attempt": attempt,
        "question": question,
        "layout": Layout(fields=fields, sites=len(permit.participants), most=permit.most_patients),
        "totals": totals if isinstance(totals, np.ndarray) else np.array(totals, np.int64),
        "rows": rows,
        "patients": patients,
        "bound": bound,
    }
    return door.Update(**made | changes)


@pytest.mark.promise(1)
def test_masked_is_constructed_in_exactly_one_place():
    calls = []
    for path in Path(paroma.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and "Masked" in {
                getattr(node.func, "id", ""),
                getattr(node.func, "attr", ""),
            }:
                calls.append(path.name)
    assert calls == ["door.py"]


@pytest.mark.promise(1)
def test_without_privacy_the_exact_totals_leave_under_masks(make_permit, door_parts):
    _, ledger, noise = door_parts
    masked = door.let_out(
        update(make_permit()), permit=make_permit(), ledger=ledger, noise=noise, masks=lambda b: bytes(x ^ 7 for x in b)
    )
    assert np.frombuffer(bytes(x ^ 7 for x in masked.upload), "<i8").tolist() == [20, 3, -4]
    assert masked.receipt.head == ledger.head()
    assert masked.receipt.mu_squared == 0


@pytest.mark.promise(1)
@pytest.mark.parametrize("rows", [0, 1, 9])
def test_the_refusal_below_the_floor_is_the_same_byte_for_byte(make_permit, door_parts, rows):
    register, ledger, noise = door_parts
    for few in (
        update(make_permit(), (rows, 0, 0), rows=rows),
        update(make_permit(), rows=20, patients=PATIENTS[:rows]),
    ):
        with pytest.raises(door.CohortTooSmall) as refusal:
            door.let_out(few, permit=make_permit(), ledger=ledger, noise=noise, masks=no_masks)
        assert str(refusal.value) == str(door.CohortTooSmall())
    assert register.data is None


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"totals": np.array([20, 21, 0], np.int64)}, id="more than so many patients can make"),
        pytest.param({"totals": np.array([20, 0, -(2**63)], np.int64)}, id="the lowest integer"),
        pytest.param({"totals": np.array([19, 0, 0], np.int64)}, id="another count than rows"),
        pytest.param({"totals": np.array([20.0, 1.0, 0.0])}, id="not integers"),
        pytest.param({"totals": np.array([20, 1], np.int64)}, id="a field is missing"),
        pytest.param({"rows": 21}, id="more rows than patients"),
        pytest.param({"patients": (*PATIENTS[:20], PATIENTS[0])}, id="a patient twice"),
    ],
)
def test_totals_that_the_patients_cannot_have_made_are_refused_not_wrapped(make_permit, door_parts, changes):
    register, ledger, noise = door_parts
    with pytest.raises(door.UpdateOutOfBounds):
        door.let_out(update(make_permit(), **changes), permit=make_permit(), ledger=ledger, noise=noise, masks=no_masks)
    assert register.data is None


@pytest.mark.promise(1)
def test_more_patients_than_the_cap_are_refused(make_permit, door_parts):
    _, ledger, noise = door_parts
    with pytest.raises(door.UpdateOutOfBounds):
        door.let_out(
            update(make_permit()), permit=make_permit(most_patients=19), ledger=ledger, noise=noise, masks=no_masks
        )


@pytest.mark.promise(1)
def test_the_budget_is_debited_before_noise_exists(make_permit, privacy, door_parts):
    _, ledger, noise = door_parts
    watched = Watched(ledger, noise)
    permit = make_permit(privacy=privacy)
    masked = door.let_out(update(permit), permit=permit, ledger=watched, noise=watched, masks=no_masks)
    assert watched.seen == ["debit", "noise"]
    noised = np.frombuffer(masked.upload, "<i8")
    assert noised[0] == 20
    assert (noised[1:] != [3, -4]).all()
    assert np.abs(noised[1:]).min() > grid.share(permit, privacy).sigma / 1e4


@pytest.mark.promise(1)
@pytest.mark.parametrize("defect", [False, True], ids=["as built", "debit after"])
def test_a_debit_that_comes_after_the_noise_is_noticed(make_permit, privacy, door_parts, defect):
    register, ledger, noise = door_parts
    permit, watched = make_permit(privacy=privacy), Suspicious(noise, register)
    budget = DebitsLater(ledger) if defect else ledger
    door.let_out(update(permit), permit=permit, ledger=budget, noise=watched, masks=no_masks)
    assert watched.paid == [not defect]


@pytest.mark.promise(1)
@pytest.mark.parametrize("fail", ["left nothing", "left it"])
def test_when_the_disk_fails_nothing_leaves_and_a_retry_of_what_was_left_is_refused(make_permit, privacy, fail):
    register = Memory(fail)
    ledger, noise = Kept(register, SeededRandomness(1)), DiscreteGaussian(SeededRandomness(2))
    permit = make_permit(privacy=privacy)
    watched = Watched(ledger, noise)
    with pytest.raises(OSError, match="disk"):
        door.let_out(update(permit), permit=permit, ledger=watched, noise=watched, masks=no_masks)
    assert watched.seen == ["debit"]
    register.fail = None
    if fail == "left it":
        with pytest.raises(door.AlreadyLetOut):
            door.let_out(update(permit), permit=permit, ledger=ledger, noise=noise, masks=no_masks)
    else:
        door.let_out(update(permit), permit=permit, ledger=ledger, noise=noise, masks=no_masks)


@pytest.mark.promise(1)
def test_one_attempt_leaves_once(make_permit, privacy, door_parts):
    _, ledger, noise = door_parts
    permit = make_permit(privacy=privacy)
    door.let_out(update(permit), permit=permit, ledger=ledger, noise=noise, masks=no_masks)
    with pytest.raises(door.AlreadyLetOut):
        door.let_out(update(permit), permit=permit, ledger=ledger, noise=noise, masks=no_masks)


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "bound", [None, Bound(norm=2.4, scale_bits=21), Bound(norm=1.2, scale_bits=3)], ids=["none", "norm", "grid"]
)
def test_rows_that_were_not_cut_as_the_permit_says_are_refused(make_permit, privacy, door_parts, bound):
    _, ledger, noise = door_parts
    permit = make_permit(privacy=privacy)
    with pytest.raises(door.UpdateUnbounded):
        door.let_out(update(permit, bound=bound), permit=permit, ledger=ledger, noise=noise, masks=no_masks)


@pytest.mark.promise(1)
def test_a_total_beyond_what_cut_rows_can_make_is_refused(make_permit, privacy, door_parts):
    _, ledger, noise = door_parts
    permit = make_permit(privacy=privacy)
    steps = grid.share(permit, privacy).bound.steps
    with pytest.raises(door.UpdateOutOfBounds):
        door.let_out(update(permit, (20, 20 * steps + 1, 0)), permit=permit, ledger=ledger, noise=noise, masks=no_masks)


@pytest.mark.promise(1)
def test_the_budget_ends_where_the_permit_says(make_permit, privacy, door_parts):
    _, ledger, noise = door_parts
    permit = make_permit(privacy=privacy, questions=100, attempts=2)

    def ask(i):
        one = update(permit, attempt=f"a{i}", question=f"q{i}")
        door.let_out(one, permit=permit, ledger=ledger, noise=noise, masks=no_masks)

    paid = accountants.limit(privacy) // accountants.cost(privacy)
    assert paid >= privacy.questions
    for i in range(paid):
        ask(i)
    with pytest.raises(BudgetSpent):
        ask(paid)
    assert ledger.admissible(permit, PATIENTS[:30]) == PATIENTS[20:30]


@pytest.mark.promise(1)
def test_attempts_and_questions_are_limited_without_privacy_too(make_permit, door_parts):
    _, ledger, noise = door_parts
    permit = make_permit(questions=2, attempts=2)

    def ask(attempt, question):
        door.let_out(
            update(permit, attempt=attempt, question=question),
            permit=permit,
            ledger=ledger,
            noise=noise,
            masks=no_masks,
        )

    ask("a1", "q1")
    ask("a2", "q1")
    with pytest.raises(AttemptsSpent):
        ask("a3", "q1")
    ask("a4", "q2")
    with pytest.raises(QuestionsSpent):
        ask("a5", "q3")


def test_masks_that_change_the_size_are_refused(make_permit, door_parts):
    _, ledger, noise = door_parts
    with pytest.raises(door.MasksBroken):
        door.let_out(
            update(make_permit()), permit=make_permit(), ledger=ledger, noise=noise, masks=lambda data: data[:-1]
        )
