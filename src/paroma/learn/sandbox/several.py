"""Several sandboxes as one: a task goes to the one that has its entry.

What every fork carries costs at every fork (its page tables are copied, and taken down again), so what is needed often
is not preloaded beside what is needed seldom and is large. One sandbox stands from the start, and its walls are the
walls that are shown; each other one is built, with the same walls or not at all, at its first task.
"""

from collections.abc import Mapping

from paroma.learn.sandbox.host import Sandbox
from paroma.learn.sandbox.task import Conversation, Task
from paroma.learn.sandbox.walls import Wall


class Several:
    """Satisfies `Workers`. Belongs to the event loop in which its sandboxes were made."""

    def __init__(self, first: Sandbox, others: Mapping[str, Sandbox]) -> None:
        """first: stands already, and gets every entry that no other has. others: by entry."""
        self._first = first
        self._others = dict(others)

    async def run(self, task: Task) -> bytes:
        """As `Sandbox.run`."""
        return await self._of(task).run(task)

    async def converse(self, task: Task) -> Conversation:
        """As `Sandbox.converse`."""
        return await self._of(task).converse(task)

    def walls(self) -> tuple[Wall, ...]:
        """The walls of the first; another one with a required wall missing runs nothing."""
        return self._first.walls()

    async def stop(self) -> None:
        """End all."""
        for sandbox in (self._first, *self._others.values()):
            await sandbox.stop()

    def _of(self, task: Task) -> Sandbox:
        return self._others.get(task.entry, self._first)
