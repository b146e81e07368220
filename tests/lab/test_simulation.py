import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import anyio.to_thread
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from paroma.kernel.blocking import Inline, Threads
from paroma.kernel.disk import SystemDisk
from paroma.kernel.store.database import StoreUnavailable, open_store, upsert
from paroma.kernel.wire.network import HttpRequest, PeerUnavailable
from paroma.lab.simulation import disk as disks
from paroma.lab.simulation.clock import VirtualClock
from paroma.lab.simulation.disk import Fault, FaultyDisk
from paroma.lab.simulation.loop import Deadlock, LeavesSimulation, SimulatedKill, run
from paroma.lab.simulation.machine import Machine
from paroma.lab.simulation.network import Faults, Internet

HUB = "https://hub.example"
STORMY = Faults(least_delay=0.001, most_delay=0.5, lose_request=0.1, lose_reply=0.1, double=0.1)


class Counter:
    """A small hub: counts what it was told, once for each id."""

    def __init__(self):
        self.seen, self.calls, self.order = {}, 0, []
        self.parked = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/count/{id}", self.count, methods=["POST"]),
                Route("/park", self.park),
                Route("/fail", self.fail),
                Route("/slow", self.slow),
                Route("/stream", self.stream),
                Route("/sync", self.sync),
            ]
        )

    async def count(self, request):
        self.calls += 1
        self.order.append(request.path_params["id"])
        self.seen.setdefault(request.path_params["id"], await request.body())
        return PlainTextResponse(str(len(self.seen)), headers={"X-From": request.client.host})

    async def park(self, request):
        try:
            async with asyncio.timeout(25):
                await self.parked.wait()
        except TimeoutError:
            return PlainTextResponse("nothing")
        return PlainTextResponse("woken")

    async def fail(self, request):
        raise RuntimeError("a defect")

    async def slow(self, request):
        await asyncio.sleep(5)
        self.calls += 1
        return PlainTextResponse("done")

    async def stream(self, request):
        async def pieces():
            for i in range(3):
                await asyncio.sleep(0.1)
                yield f"{i}"

        return StreamingResponse(pieces())

    def sync(self, request):
        return PlainTextResponse("from a thread")


def post(name, body=b"", timeout=3.0):
    return HttpRequest(method="POST", url=f"{HUB}/count/{name}", body=body, timeout=timeout)


def get(path, timeout=30.0):
    return HttpRequest(method="GET", url=HUB + path, timeout=timeout)


def with_hub(seed, course, faults=STORMY):
    async def main(loop):
        internet, hub = Internet(loop, faults), Counter()
        async with internet.serving("hub", HUB, hub.app):
            return await course(loop, internet, hub)

    return run(seed, main)


async def insist(network, request):
    for _attempt in range(200):
        try:
            return await network.send(request)
        except PeerUnavailable:
            continue
    raise AssertionError("never got through")


async def busy_day(loop, internet, hub):
    async def site(name):
        network = internet.network(name)
        for i in range(5):
            await insist(network, post(f"{name}-{i}", name.encode()))

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(site(name))
        internet.cut("hub", "b")
        await asyncio.sleep(7)
        internet.heal("hub", "b")
    return loop.trace, hub.calls, tuple(hub.seen), tuple(hub.order)


def test_the_same_seed_gives_the_same_course_and_another_seed_another():
    days = [with_hub(seed, busy_day) for seed in (1, 1, 2)]
    assert days[0] == days[1]
    assert days[0] != days[2]


def test_the_same_seed_gives_the_same_course_in_another_process_with_other_hashes():
    traces = set()
    program = f"import runpy; day = runpy.run_path({str(Path(__file__))!r}); print([day['with_hub'](s, day['busy_day']) for s in (3, 4)])"
    for hash_seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.add(done.stdout)
    assert len(traces) == 1
    assert "site" not in traces


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_network_loses_and_doubles_each_thing_counts_once_in_the_end(seed):
    _trace, calls, seen, _order = with_hub(seed, busy_day)
    assert sorted(seen) == sorted(f"{name}-{i}" for name in "abc" for i in range(5))
    assert calls > len(seen)  # the planted faults do happen


def test_seeds_try_different_orders():
    async def race(loop, internet, hub):
        network = internet.network("a")
        await asyncio.gather(*(network.send(post(str(i))) for i in range(4)))
        return tuple(hub.order)

    assert len({with_hub(seed, race, Faults()) for seed in range(8)}) > 3


def test_hours_pass_in_no_time_and_to_the_millisecond():
    async def main(loop):
        clock = VirtualClock(loop)
        began = clock.now()
        await clock.sleep(36_000.001)
        clock.jump(-5.0)
        return clock.now() - began, clock.monotonic()

    assert run(0, main) == pytest.approx((35_995.001, 36_000.001))


def test_a_reply_is_what_the_program_said():
    async def course(loop, internet, hub):
        reply = await internet.network("a").send(post("x", b"\x00body"))
        streamed = await internet.network("a").send(get("/stream"))
        return reply.status, reply.body, reply.headers["x-from"], hub.seen, streamed.body

    assert with_hub(0, course, Faults()) == (200, b"1", "a", {"x": b"\x00body"}, b"012")


def test_a_defect_in_a_program_is_a_500_and_is_remembered():
    async def course(loop, internet, hub):
        return (await internet.network("a").send(get("/fail"))).status, [str(c["exception"]) for c in loop.complaints]

    assert with_hub(0, course, Faults()) == (500, ["a defect"])


def test_a_parked_request_is_answered_when_its_time_is_up_or_it_is_woken():
    async def course(loop, internet, hub):
        first = (await internet.network("a").send(get("/park"))).body
        waiting = asyncio.create_task(internet.network("a").send(get("/park")))
        await asyncio.sleep(10)
        hub.parked.set()
        return first, (await waiting).body, loop.time()

    first, second, at = with_hub(0, course, Faults())
    assert (first, second) == (b"nothing", b"woken")
    assert 35 < at < 35.1


def test_a_lost_reply_leaves_the_effect_and_a_lost_request_leaves_nothing():
    async def ask(loop, internet, hub):
        with pytest.raises(PeerUnavailable, match="within 3 s"):
            await internet.network("a").send(post("x"))
        return len(hub.seen), loop.time()

    assert with_hub(0, ask, Faults(lose_reply=1.0)) == (1, 3.0)
    assert with_hub(0, ask, Faults(lose_request=1.0)) == (0, 3.0)


def test_who_gives_up_does_not_stop_what_was_set_off():
    async def course(loop, internet, hub):
        with pytest.raises(PeerUnavailable):
            await internet.network("a").send(get("/slow", timeout=1.0))
        await asyncio.sleep(10)
        return hub.calls

    assert with_hub(0, course, Faults()) == 1


def test_nobody_answers_for_a_hub_that_is_not_there_or_was_killed():
    async def course(loop, internet, hub):
        network = internet.network("a")
        waiting = asyncio.create_task(network.send(get("/slow")))
        await asyncio.sleep(1)
        internet.kill("hub")
        outcomes = await asyncio.gather(waiting, network.send(post("x")), return_exceptions=True)
        await asyncio.sleep(10)
        return [type(outcome) for outcome in outcomes], hub.calls

    assert with_hub(0, course, Faults()) == ([PeerUnavailable, PeerUnavailable], 0)


def test_waiting_for_what_will_never_happen_is_a_deadlock():
    async def main(loop):
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="seed 7"):
        run(7, main)


def test_a_thread_cannot_be_had():
    async def executor(loop):
        await Threads(1).run(lambda: 1)

    with pytest.raises(LeavesSimulation):
        run(0, executor)

    async def through_anyio(loop):
        await anyio.to_thread.run_sync(lambda: 1)

    with pytest.raises(Deadlock):
        run(0, through_anyio)
    assert not [thread for thread in threading.enumerate() if "AnyIO" in thread.name]


def test_a_synchronous_route_is_found():
    async def course(loop, internet, hub):
        await internet.network("a").send(get("/sync", timeout=5))

    with pytest.raises((PeerUnavailable, Deadlock)):
        with_hub(0, course, Faults())


METADATA = MetaData()
NOTES = Table("test_notes", METADATA, Column("name", String, primary_key=True), Column("value", Integer))


def note(name):
    return lambda tx: tx.execute(upsert(tx, NOTES).values(name=name, value=1).on_conflict_do_nothing())


def life(loop, internet, path, *, plan, acknowledged, lives):
    """A site that notes n0 to n9, and is started anew whenever it is killed."""
    machine = Machine(loop, internet, "site", plan=plan, on_kill=lambda: lives.append("killed"))
    store = open_store(f"sqlite:///{path}", Inline(), machine.disk)

    async def work():
        for i in range(10):
            for _attempt in range(50):
                try:
                    await store.write(note(f"n{i}"))
                except StoreUnavailable:
                    await machine.clock.sleep(0.1)
                else:
                    acknowledged.add(f"n{i}")
                    break
            await machine.clock.sleep(1)
        lives.append("finished")

    return machine, store, machine.start(work())


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(12, 200))])
def test_a_machine_that_is_killed_and_whose_disk_fails_keeps_what_it_acknowledged(seed, tmp_path):
    async def main(loop):
        internet, acknowledged, lives = Internet(loop), set(), []
        chance = loop.source("plan")
        faults = {
            Fault.KILL_BEFORE: 0.1,
            Fault.KILL_AFTER: 0.1,
            Fault.FAILS_BEFORE: 0.1,
            Fault.FAILS_AFTER: 0.1,
            Fault.FULL: 0.1,
        }
        first = open_store(f"sqlite:///{tmp_path / 'a.db'}", Inline(), SystemDisk())
        METADATA.create_all(first.engine)
        first.close()
        while "finished" not in lives:
            machine, store, task = life(
                loop,
                internet,
                tmp_path / "a.db",
                plan=disks.by_chance(chance, faults),
                acknowledged=acknowledged,
                lives=lives,
            )
            await asyncio.wait([task])
            store.close()
            witness = open_store(f"sqlite:///{tmp_path / 'a.db'}", Inline(), SystemDisk())
            there = set(witness.read_now(lambda tx: tx.execute(select(NOTES.c.name)).scalars()))
            witness.close()
            assert acknowledged <= there
            assert machine.killed or "finished" in lives
        assert loop.complaints == []
        return acknowledged, len(lives)

    acknowledged, lives = run(seed, main)
    assert acknowledged == {f"n{i}" for i in range(10)}
    assert lives >= 1


def test_a_killed_machine_has_no_effect_any_more():
    async def course(loop, internet, hub):
        machine = Machine(loop, internet, "site")

        async def stubborn():
            while True:
                try:
                    await machine.network.send(post("x"))
                    hub.calls = 0
                except asyncio.CancelledError:
                    continue  # what no program should do
                await asyncio.sleep(1)

        async def child():
            await asyncio.sleep(5)
            hub.order.append("too late")

        async def parent():
            started = asyncio.create_task(child())
            await stubborn()
            await started

        machine.start(parent())
        await asyncio.sleep(3)
        machine.kill()
        before = hub.calls
        await asyncio.sleep(20)
        with pytest.raises(SimulatedKill):
            machine.disk.commit(lambda: hub.order.append("written"))
        for task in loop.tasks_of("site"):
            task.get_coro().close()  # a process that is gone does not go on; here its coroutines must be told
        return hub.calls - before, set(hub.order)

    assert with_hub(0, course, Faults()) == (0, {"x"})


@pytest.mark.parametrize(("fault", "left", "error"), [
    (Fault.FAILS_BEFORE, b"old", OSError),
    (Fault.FAILS_AFTER, b"new", OSError),
    (Fault.FULL, b"old", OSError),
    (Fault.KILL_BEFORE, b"old", SimulatedKill),
    (Fault.KILL_AFTER, b"new", SimulatedKill),
], ids=lambda value: getattr(value, "name", ""))  # fmt: skip
def test_a_planned_fault_happens_at_its_write_and_only_there(tmp_path, fault, left, error):
    disk, path = FaultyDisk(SystemDisk(), disks.at(2, fault)), tmp_path / "file"
    disk.replace(path, b"old")
    with pytest.raises(error):
        disk.replace(path, b"new")
    assert path.read_bytes() == left
    if error is SimulatedKill:
        with pytest.raises(SimulatedKill):
            disk.remove(path)
    else:
        disk.remove(path)
        assert not path.exists()


def test_chances_come_out_as_asked():
    async def main(loop):
        plan = disks.by_chance(loop.source("x"), {Fault.FULL: 0.25, Fault.FAILS_BEFORE: 0.25})
        drawn = [plan(i) for i in range(2000)]
        return drawn.count(Fault.FULL), drawn.count(Fault.FAILS_BEFORE), drawn.count(None)

    full, fails, none = run(0, main)
    assert 400 < full < 600
    assert 400 < fails < 600
    assert full + fails + none == 2000
