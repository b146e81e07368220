import threading

import pytest

from paroma.kernel.store import leases
from paroma.kernel.store.tables import METADATA


@pytest.fixture
def shared(store):
    METADATA.create_all(store.engine)
    return store


def take(store, holder, at, seconds=10.0, job="sweep"):
    return store.write_now(lambda tx: leases.take(tx, job, holder, at=at, seconds=seconds))


def test_one_holder_at_a_time(shared):
    assert take(shared, "a", at=100.0).holder == "a"
    assert take(shared, "b", at=109.999) is None
    assert take(shared, "b", at=100.0, job="other").holder == "b"


def test_a_holder_prolongs_its_own_lease_in_the_same_term(shared):
    first = take(shared, "a", at=100.0)
    again = take(shared, "a", at=105.0)
    assert (again.term, again.until) == (first.term, 115.0)
    assert take(shared, "b", at=111.0) is None


def test_an_ended_lease_is_taken_over_in_a_new_term(shared):
    first = take(shared, "a", at=100.0)
    second = take(shared, "b", at=110.0)
    assert (second.holder, second.term) == ("b", first.term + 1)
    assert take(shared, "a", at=111.0) is None
    assert shared.read_now(lambda tx: leases.current(tx, "sweep", at=111.0)) == second
    assert shared.read_now(lambda tx: leases.current(tx, "sweep", at=120.0)) is None


def test_a_lease_given_back_is_free_at_once_and_its_term_is_not_used_again(shared):
    first = take(shared, "a", at=100.0)
    shared.write_now(lambda tx: leases.release(tx, first))
    second = take(shared, "b", at=100.5)
    assert second.term == first.term + 1
    shared.write_now(lambda tx: leases.release(tx, first))  # late, from who no longer holds it
    assert shared.read_now(lambda tx: leases.current(tx, "sweep", at=101.0)) == second


def test_of_many_that_ask_at_once_one_gets_it(shared):
    got = []
    threads = [threading.Thread(target=lambda name=name: got.append(take(shared, name, at=100.0))) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lease for lease in got if lease]) == 1
