"""What a decision obliges a contribution to: the strictest of policies and settings, and what the permit has to keep to."""

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.mounts import Interpreter
from paroma.learn.sandbox.task import Ending, Limits, Task, WorkerFailed
from paroma.site import limits
from paroma.site.limits import Meter, ObligationUnmet, UploadTooLarge
from paroma.trust.permit.permit import Participant, Permit
from paroma.trust.policy.obligations import NOTHING, Obligations

MIB = 1 << 20
LATER = 3.0  # s: the machine has other work


@pytest.mark.promise(3)
@given(
    st.none() | st.integers(1, 10**5),
    st.none() | st.integers(1, 10**5),
    st.none() | st.integers(1, 10**5),
    st.floats(0.1, 1e4),
)
def test_a_worker_gets_the_strictest(seconds, memory, upload, own):
    obliged = Obligations(seconds=seconds, cpu_seconds=seconds, memory_mib=memory, upload_mib=upload)
    given_, most = limits.worker(obliged, own), Limits()
    assert given_.seconds == min(own, seconds or own)
    assert given_.cpu_seconds == (seconds or most.cpu_seconds)
    assert given_.memory == min(most.memory, (memory or 10**6) * MIB)
    assert given_.reply == min(most.reply, (upload or 10**6) * MIB)


@pytest.mark.promise(3)
def test_a_limit_of_nothing_is_no_missing_limit():
    nothing = Obligations(seconds=0, cpu_seconds=0, memory_mib=0, upload_mib=0)
    given_ = limits.worker(nothing, 60.0)
    assert (given_.seconds, given_.cpu_seconds, given_.memory, given_.reply) == (0, 0, 0, 0)


@pytest.fixture
def permit():
    return Permit(
        id="permit-1", study="study-1", title="t", purpose="statistics", applicant="person-1", data_set="dataset-1",
        features=("age",), algorithms=("statistics",), participants=tuple(Participant(site=f"site-{n}", owner=f"o{n}") for n in range(3)),
        least_patients=10, least_owners=3, colluders=0, dropouts=0, most_patients=1000, attempts=1, questions=1, starts=0.0, ends=1.0,
    )  # fmt: skip


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("obliged", "sentence"),
    [
        (Obligations(mode="per-site"), "mode `masked`"),
        (Obligations(least_patients=11), "a floor of 10 patients"),
        (Obligations(least_sites=4), "3 sites"),
        (Obligations(epsilon_thousandths=1000), "no differential privacy"),
    ],
)
def test_a_permit_that_does_not_keep_to_it_is_refused(permit, obliged, sentence):
    with pytest.raises(ObligationUnmet, match=sentence) as caught:
        limits.require_kept(obliged, permit)
    assert caught.value.do
    limits.require_kept(NOTHING, permit)
    limits.require_kept(Obligations(mode="masked", least_patients=10, least_sites=3), permit)


def test_an_upload_is_cut_at_exactly_its_limit():
    limits.require_upload(Obligations(upload_mib=2), 2 * MIB)
    limits.require_upload(NOTHING, 10**12)
    with pytest.raises(UploadTooLarge) as caught:
        limits.require_upload(Obligations(upload_mib=2), 2 * MIB + 1)
    told = limits.cut(caught.value, Meter(obliged=Obligations(upload_mib=2), seconds=1.5), 60.0)
    assert told == {"limit": "upload_mib", "most": 2, "seconds": 1.5}


def test_what_is_no_cut_is_told_as_none():
    for ending in (Ending.RAISED, Ending.CONTRACT, Ending.DIED):
        assert limits.cut(WorkerFailed("x:y", ending), Meter(obliged=NOTHING), 60.0) is None
    assert limits.cut(ValueError(), Meter(obliged=NOTHING), 60.0) is None


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("entry", "obliged", "ending"),
    [
        pytest.param("sleep", Obligations(seconds=1), Ending.LATE, id="time"),
        pytest.param("burn", Obligations(cpu_seconds=1), Ending.CPU, id="processor"),
        pytest.param("fill_memory", Obligations(memory_mib=128), Ending.MEMORY, id="memory"),
        pytest.param("reply_of", Obligations(upload_mib=1), Ending.REPLY, id="bytes"),
    ],
)
def test_a_real_worker_is_cut_where_the_decision_says(workers, entry, obliged, ending):
    payload = {"sleep": b"60", "reply_of": str(MIB + 1).encode()}.get(entry, b"")
    task = Task(entry=f"attacks:{entry}", payload=payload, limits=limits.worker(obliged, 60.0))
    meter = Meter(obliged=obliged)
    problem, meter.seconds = workers(task)
    assert problem.ending is ending
    told = limits.cut(problem, meter, 60.0)
    (name, most), *_ = [*obliged.told().items()]
    assert (told["limit"], told["most"]) == (name, most)
    if name == "seconds":
        assert 1.0 <= told["seconds"] < 1.0 + LATER


@pytest.fixture
def workers():
    """`workers(task)`: how it failed in a real sandbox, and after how many seconds."""
    inside = Path(__file__).parents[1] / "learn" / "sandbox" / "inside"

    async def run(task):
        sandbox = await Sandbox.start((task.entry,), interpreter=Interpreter.current(also=(inside,)))
        try:
            began = time.monotonic()
            with pytest.raises(WorkerFailed) as caught:
                await sandbox.run(task)
            return caught.value, time.monotonic() - began
        finally:
            await sandbox.stop()

    return lambda task: asyncio.run(run(task))
