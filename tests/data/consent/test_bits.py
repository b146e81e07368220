import mmap
import os

import numpy as np
import pytest

from paroma.data.consent.bits import Bits, Board
from paroma.data.consent.state import Verdicts
from paroma.data.consent.statement import Use, Verdict
from paroma.kernel.errors import Unavailable

USE = Use(purpose="scientific-research")
PEOPLE = [f"p{i}" for i in range(21)]


class Judge:
    """Stands for the store: whoever is in `out` may not be used."""

    def __init__(self):
        self.out = set()
        self.edge = None
        self.broken = False

    def __call__(self, use, patients):
        if self.broken:
            raise Unavailable("no store", do="wait")
        found = {p: Verdict(p not in self.out, "rule") for p in (patients or PEOPLE)}
        return Verdicts(found, Verdict(False, "no consent"), 1, self.edge)


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def board(judge):
    return Board(judge)


def worker_reads(bits):
    """The bits as another process sees them through the descriptor."""
    seen, inlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            memory = mmap.mmap(bits.fd, 3, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            os.write(inlet, memory[:3])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    content = os.read(seen, 3)
    os.close(seen)
    os.close(inlet)
    return np.unpackbits(np.frombuffer(content, np.uint8), count=21, bitorder="little").astype(bool).tolist()


@pytest.mark.promise(2)
def test_a_worker_sees_a_change_at_its_next_look(board, judge):
    bits = board.open("permit", USE, PEOPLE)
    assert worker_reads(bits) == [True] * 21
    judge.out = {"p9"}
    assert worker_reads(bits) == [True] * 21  # the control: nobody has told the bits yet
    board.refresh(["p9", "somebody else"])
    assert worker_reads(bits) == [i != 9 for i in range(21)]
    judge.out = set()
    board.refresh(["p9"])
    assert worker_reads(bits) == bits.read().tolist() == [True] * 21
    board.close("permit")


@pytest.mark.promise(2)
def test_a_worker_cannot_write_the_bits():
    bits = Bits(PEOPLE)
    with pytest.raises(PermissionError):
        mmap.mmap(bits.fd, 3, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(bits.fd, b"\xff", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(bits.fd, 0)
    bits.close()


@pytest.mark.promise(2)
def test_an_error_is_a_no(board, judge):
    bits = board.open("permit", USE, PEOPLE)
    judge.broken = True
    with pytest.raises(Unavailable):
        board.refresh(["p3"])
    assert not bits.read()[3]
    assert bits.read().sum() == 20
    judge.broken, judge.edge = False, 10.0
    board.refresh(["p3"])
    judge.broken = True
    with pytest.raises(Unavailable):
        board.recompile(10.0)
    assert not bits.read().any()


@pytest.mark.promise(2)
def test_the_bits_are_compiled_again_when_a_period_ends(board, judge):
    judge.edge = 50.0
    bits = board.open("permit", USE, PEOPLE)
    judge.out, judge.edge = {"p0"}, None
    assert board.recompile(49.9) == 50.0
    assert bits.read().all()
    assert board.recompile(50.0) is None
    assert not bits.read()[0]


def test_a_change_reaches_every_open_permit_and_a_closed_one_allows_nobody(board, judge):
    one = board.open("one", USE, PEOPLE)
    two = board.open("two", USE, PEOPLE[5:10])
    judge.out = {"p6"}
    board.refresh(["p6"])
    assert not one.read()[6]
    assert two.read().tolist() == [True, False, True, True, True]
    board.erased(["p7"])
    assert not one.read()[7]
    assert not two.read()[2]
    board.refresh(["p7"])  # on the basis of no opt-out the store says yes of somebody it has forgotten
    assert not two.read()[2]
    board.recompile_all()
    assert not two.read()[2]
    board.close("one")
    board.close("one")


@pytest.mark.promise(2)
def test_whoever_withdraws_while_a_cohort_is_compiled_is_not_forgotten(judge):
    def slow(use, patients):
        verdicts = judge(use, patients)
        if patients is None:  # after everybody was judged, and before the bits are written, somebody withdraws
            judge.out.add("p4")
            board.refresh(["p4"])
        return verdicts

    board = Board(slow)
    bits = board.open("permit", USE, PEOPLE)
    assert bits.read().tolist() == [i != 4 for i in range(21)]


def test_a_cohort_that_cannot_be_judged_is_not_opened(board, judge):
    judge.broken = True
    with pytest.raises(Unavailable):
        board.open("permit", USE, PEOPLE)
    judge.broken = False
    board.refresh(["p1"])


def test_an_empty_cohort_has_no_bits():
    bits = Bits([])
    bits.fill(np.zeros(0, bool))
    assert len(bits) == 0
    assert bits.read().tolist() == []
    bits.close()
