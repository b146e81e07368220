import pytest

from paroma.kernel.disk import SystemDisk
from paroma.kernel.store import outbox
from paroma.kernel.store.database import StoreUnavailable
from paroma.kernel.store.outbox import DifferentContent, Outgoing
from paroma.kernel.store.tables import METADATA
from paroma.lab.simulation.disk import Fault, FaultyDisk, at


@pytest.fixture
def box(store):
    METADATA.create_all(store.engine)
    return store


def out(name, body=b"x", receiver="hub"):
    return Outgoing(id=name, receiver=receiver, body=body, at=1.5)


def add(store, *outgoing):
    return store.write_now(lambda tx: [outbox.add(tx, one) for one in outgoing])


def waiting(store, receiver="hub", most=10):
    return [one.id for one in store.read_now(lambda tx: outbox.unsent(tx, receiver, most=most))]


def test_rows_wait_in_order_until_they_are_confirmed(box):
    assert add(box, out("b"), out("a"), out("c"), out("z", receiver="site")) == [True] * 4
    assert waiting(box) == ["b", "a", "c"]
    assert waiting(box, most=2) == ["b", "a"]
    box.write_now(lambda tx: outbox.mark_sent(tx, ["b", "c", "never"], at=2.0))
    box.write_now(lambda tx: outbox.mark_sent(tx, ["b"], at=9.0))
    assert waiting(box) == ["a"]
    assert waiting(box, "site") == ["z"]
    assert box.write_now(lambda tx: outbox.forget(tx, sent_before=3.0)) == 2
    assert waiting(box) == ["a"]


def test_the_body_comes_back_byte_for_byte(box):
    body = bytes(range(256))
    add(box, out("a", body))
    assert box.read_now(lambda tx: outbox.unsent(tx, "hub", most=1)) == (out("a", body),)


def test_adding_the_same_again_changes_nothing_also_after_it_was_sent(box):
    add(box, out("a"))
    assert add(box, out("a")) == [False]
    box.write_now(lambda tx: outbox.mark_sent(tx, ["a"], at=2.0))
    assert add(box, out("a")) == [False]
    assert waiting(box) == []


def test_one_id_never_carries_two_contents(box):
    add(box, out("a", b"one"))
    with pytest.raises(DifferentContent, match="`a`"):
        add(box, out("a", b"two"))
    with pytest.raises(DifferentContent):
        add(box, out("a", b"one", receiver="site"))


@pytest.mark.parametrize("fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER], ids=lambda fault: fault.name)
def test_a_repeat_after_a_failed_commit_leaves_one_row(new_store, fault):
    box = new_store(disk=FaultyDisk(SystemDisk(), at(1, fault)))
    METADATA.create_all(box.engine)
    with pytest.raises(StoreUnavailable):
        add(box, out("a"))
    assert add(box, out("a")) == [fault is Fault.FAILS_BEFORE]
    assert waiting(box) == ["a"]
