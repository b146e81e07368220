import asyncio

import pytest

from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.mounts import Interpreter
from paroma.learn.sandbox.several import Several
from paroma.learn.sandbox.task import EntryUnknown, PreloadFailed, Task, WorkerFailed


def test_a_task_goes_to_the_sandbox_that_has_its_entry_and_that_one_starts_with_it(loop, inside):
    async def story():
        known = Interpreter.current(also=(inside,))
        seldom = Sandbox.at_need(("attacks:reply_of",), interpreter=known)
        both = Several(await Sandbox.start(("attacks:echo",), interpreter=known), {"attacks:reply_of": seldom})
        try:
            assert await both.run(Task(entry="attacks:echo", payload=b"first")) == b"first"
            assert seldom.walls() == ()
            assert all(wall.there for wall in both.walls() if wall.required)
            said = await asyncio.gather(*(both.run(Task(entry="attacks:reply_of", payload=b"7")) for _ in range(2)))
            assert {len(reply) for reply in said} == {7}
            assert [wall.name for wall in seldom.walls()] == [wall.name for wall in both.walls()]
            with pytest.raises(EntryUnknown):
                await both.run(Task(entry="attacks:sleep", payload=b"1"))
        finally:
            await both.stop()

    loop.run(story())


def test_what_cannot_be_imported_is_said_at_the_first_task(loop):
    async def story():
        sandbox = Sandbox.at_need(("no_such_module:run",), interpreter=Interpreter.current())
        with pytest.raises(PreloadFailed, match="no_such_module"):
            await sandbox.run(Task(entry="no_such_module:run", payload=b""))
        await sandbox.stop()

    loop.run(story())


def test_what_a_failed_task_printed_is_kept_in_a_folder_that_nobody_had_made(loop, inside, tmp_path):
    async def story():
        sandbox = await Sandbox.start(
            ("attacks:raise_with",), interpreter=Interpreter.current(also=(inside,)), notes=tmp_path / "a" / "notes"
        )
        with pytest.raises(WorkerFailed):
            await sandbox.run(Task(entry="attacks:raise_with", payload=b"a secret"))
        await sandbox.stop()

    loop.run(story())
    (kept,) = (tmp_path / "a" / "notes").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
