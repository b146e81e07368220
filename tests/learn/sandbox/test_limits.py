"""A task uses no more than its limits, ends when they are reached, and leaves nothing behind."""

import asyncio
import errno
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.mounts import Interpreter
from paroma.learn.sandbox.task import (
    Ending,
    EntryUnknown,
    Finished,
    Limits,
    LimitTooHigh,
    Said,
    SandboxIncomplete,
    TableUnsealed,
    Task,
    WorkerFailed,
)

MEMORY = 256 << 20
FUTURE_WRITE = 0x10


def task(name, payload=b"", tables=(), **limits):
    return Task(entry=f"attacks:{name}", payload=payload, tables=tables, limits=Limits(**{"memory": MEMORY, **limits}))


def ending(loop, sandbox, asked):
    with pytest.raises(WorkerFailed) as failed:
        loop.run(sandbox.run(asked))
    return failed.value.ending


@pytest.mark.parametrize("size", [0, 1, 10_000, 1 << 20])
def test_payload_and_tables_arrive_as_they_were_sent(loop, sandbox, size):
    payload, table = os.urandom(size), os.urandom(size // 2)
    assert loop.run(sandbox.run(task("echo", payload, (table, b"", b"end")))) == payload + table + b"end"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(task("fill_memory"), Ending.MEMORY, id="memory"),
        pytest.param(task("burn", cpu_seconds=1), Ending.CPU, id="processor time"),
        pytest.param(task("sleep", b"60", seconds=0.2), Ending.LATE, id="late"),
        pytest.param(task("reply_of", b"100001", reply=100_000), Ending.REPLY, id="a reply that is too large"),
        pytest.param(task("one_large_file", file=1 << 20), Ending.RAISED, id="a file that is too large"),
        pytest.param(task("write_table", tables=(b"1234",)), Ending.RAISED, id="a table is written"),
        pytest.param(task("abort"), Ending.DIED, id="an abort"),
        pytest.param(task("leave", b"bye"), Ending.RAISED, id="an exit"),
        pytest.param(task("forge", b"\x02" + b"\xff" * 8), Ending.REPLY, id="a frame that announces more than allowed"),
        pytest.param(task("forge", b"\x09" + bytes(8)), Ending.REPLY, id="a frame of no known kind"),
        pytest.param(
            task("forge", b"\x03" + (1).to_bytes(8, "little") + b"\x63"),
            Ending.REPLY,
            id="an ending that is not on the list",
        ),
        pytest.param(
            task("forge", b"\x02" + (9).to_bytes(8, "little") + b"short"),
            Ending.DIED,
            id="a frame that stops in the middle",
        ),
        pytest.param(task("forge", b"\x01" + bytes(8)), Ending.REPLY, id="a message where a reply is due"),
    ],
)
@pytest.mark.promise(1)
def test_a_task_ends_in_one_of_the_few_ways(loop, sandbox, asked, expected):
    assert ending(loop, sandbox, asked) is expected
    assert loop.run(sandbox.run(task("echo", b"still there"))) == b"still there"


@pytest.mark.promise(1)
def test_what_the_code_inside_said_stays_in_a_file_at_the_site(loop, sandbox, notes):
    with pytest.raises(WorkerFailed) as failed:
        loop.run(sandbox.run(task("raise_with", b"patient Smith has it")))
    assert "Smith" not in str(failed.value)
    assert failed.value.__cause__ is None
    written = [p for p in notes.iterdir() if b"Smith" in p.read_bytes()]
    assert len(written) == 1
    assert written[0].stat().st_mode & 0o777 == 0o600


def test_what_is_printed_beyond_the_notes_is_dropped_and_nothing_fails(loop, sandbox):
    assert loop.run(sandbox.run(task("print_much"))) == b"printed"


def test_threads_are_bounded_by_the_memory(loop, sandbox):
    assert int(loop.run(sandbox.run(task("many_threads")))) < 600


@pytest.mark.promise(1)
def test_a_full_disk_is_the_tasks_own_and_is_empty_for_the_next(loop, sandbox):
    for _ in range(2):
        written, code = json.loads(loop.run(sandbox.run(task("fill_disk"))))
        assert code == errno.ENOSPC
        assert 16 <= written <= 24


def test_a_folder_that_is_hard_to_remove_is_removed(loop, sandbox):
    zygote = sandbox._zygote
    assert loop.run(sandbox.run(task("bury"))) == b"buried"
    assert loop.run(sandbox.run(task("fill_disk")))
    assert sandbox._zygote is zygote


def test_a_late_worker_is_killed_and_does_not_hold_up_others(loop, sandbox):
    async def both():
        started = time.monotonic()
        late = asyncio.create_task(sandbox.run(task("sleep", b"60", seconds=0.3)))
        echoes = [await sandbox.run(task("echo", str(n).encode())) for n in range(5)]
        with pytest.raises(WorkerFailed):
            await late
        return echoes, time.monotonic() - started

    echoes, took = loop.run(both())
    assert echoes == [b"0", b"1", b"2", b"3", b"4"]
    assert took < 5
    loop.run(gone(sandbox))


async def gone(sandbox):
    """Wait until the zygote has no children."""
    root = psutil.Process(sandbox._zygote.process.pid)
    for _ in range(500):
        if len(root.children(recursive=True)) <= 1:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(root.children(recursive=True))


def test_a_cancelled_task_is_killed(loop, sandbox):
    async def cancel():
        running = asyncio.create_task(sandbox.run(task("sleep", b"60")))
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await gone(sandbox)

    loop.run(cancel())


def test_tasks_run_at_the_same_time(loop, sandbox):
    async def three():
        started = time.monotonic()
        await asyncio.gather(*(sandbox.run(task("sleep", b"0.5")) for _ in range(3)))
        return time.monotonic() - started

    assert loop.run(three()) < 1.4


def test_two_forks_draw_different_random_numbers(loop, sandbox):
    drawn = {json.loads(loop.run(sandbox.run(task("surroundings"))))["random"] for _ in range(3)}
    assert len(drawn) == 3


def live(content, seals):
    fd = os.memfd_create("bits", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    view = mmap.mmap(fd, len(content))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd, view


@pytest.mark.promise(2)
def test_a_worker_sees_a_consent_bit_change_while_it_runs(loop, sandbox):
    fd, view = live(b"\x01", fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | FUTURE_WRITE)

    async def talk():
        conversation = await sandbox.converse(task("converse", b"hello", (fd,)))
        heard = [await conversation.listen()]
        for bit in (b"\x01", b"\x00"):
            view[:1] = bit
            await conversation.say(b"?")
            heard.append(await conversation.listen())
        await conversation.say(b"stop")
        heard.append(await conversation.listen())
        await conversation.close()
        return heard

    assert loop.run(talk()) == [Said(b"hello"), Said(b"?\x01"), Said(b"?\x00"), Finished(b"stopped")]
    os.close(fd)


@pytest.mark.promise(2)
@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, FUTURE_WRITE])
def test_memory_that_the_worker_could_write_or_shrink_is_not_handed_over(loop, sandbox, seals):
    fd, _ = live(b"\x01", seals)
    with pytest.raises(TableUnsealed):
        loop.run(sandbox.run(task("echo", b"", (fd,))))
    os.close(fd)


def test_only_entries_of_the_preload_list_run(loop, sandbox):
    for name in ("os:system", "attacks:ATTEMPTS", "attacks", ""):
        with pytest.raises(EntryUnknown):
            loop.run(sandbox.run(Task(entry=name, payload=b"")))


def test_a_task_cannot_ask_for_more_memory_than_the_sandbox_has(loop, sandbox):
    with pytest.raises(LimitTooHigh):
        loop.run(sandbox.run(task("echo", memory=MEMORY + 1)))


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_killed_zygote_takes_its_tasks_along_and_the_next_task_starts_a_new_one(loop, inside):
    async def story():
        sandbox = await Sandbox.start(
            ("attacks:echo", "attacks:sleep"), interpreter=Interpreter.current(also=(inside,))
        )
        try:
            running = asyncio.create_task(sandbox.run(Task(entry="attacks:sleep", payload=b"60")))
            await asyncio.sleep(0.1)
            child = psutil.Process(sandbox._zygote.process.pid).children()[0]
            child.send_signal(signal.SIGKILL)
            with pytest.raises(WorkerFailed) as failed:
                await running
            assert failed.value.ending is Ending.DIED
            assert await sandbox.run(Task(entry="attacks:echo", payload=b"again")) == b"again"
            assert not alive(child)
        finally:
            await sandbox.stop()
        with pytest.raises(SandboxIncomplete):
            await sandbox.run(Task(entry="attacks:echo", payload=b"too late"))

    loop.run(story())


def test_a_program_that_dies_leaves_no_worker(inside):
    script = f"""
import asyncio, os, sys
from pathlib import Path
from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.mounts import Interpreter
from paroma.learn.sandbox.task import Task
async def main():
    sandbox = await Sandbox.start(("attacks:burn",), interpreter=Interpreter.current(also=(Path({str(inside)!r}),)))
    asyncio.create_task(sandbox.run(Task(entry="attacks:burn", payload=b"")))
    await asyncio.sleep(0.2)
    print(sandbox._zygote.process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        bwrap = psutil.Process(int(program.stdout.readline()))
        family = [bwrap, *bwrap.children(recursive=True)]
        assert len(family) == 3
        program.kill()
    psutil.wait_procs(family, timeout=5)
    assert not any(alive(p) for p in family)


def test_stopping_leaves_no_process_and_no_group(loop, inside):
    async def story():
        sandbox = await Sandbox.start((), interpreter=Interpreter.current())
        zygote = sandbox._zygote
        folders = zygote.group.folders if zygote.group else ()
        assert all(Path(f).exists() for f in folders)
        await sandbox.stop()
        assert zygote.process.poll() is not None
        assert not any(Path(f).exists() for f in folders)

    loop.run(story())
