"""A run, as it goes on: watch it, wait for it, read what came out."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from paroma.kernel.errors import Refused, Unavailable
from paroma.learn.runs.report import Progress, RunReport
from paroma.sdk import results
from paroma.sdk.results import Outcome
from paroma.sdk.talk import PARK_SECONDS, WAIT_SECONDS, Talk

COSIGNED_SECONDS: Final = 5.0  # a hospital cosigns with its next request, which leaves when the log has grown
LOOK_SECONDS: Final = 0.2
BROKEN_MOST: Final = 5  # questions in a row that a broken line may cost


class RunEnded(Refused):
    """The run ended without a result."""


class StillRunning(Unavailable):
    """The run goes on; only the waiting ended."""


class Run:
    """A run at the hub. `report` is what was last heard of it."""

    def __init__(self, talk: Talk, report: RunReport) -> None:
        self.report = report
        self._talk = talk

    @property
    def id(self) -> str:
        """Its id."""
        return self.report.run

    @property
    def status(self) -> str:
        """waiting, running, paused, finished, failed or stopped, as last heard."""
        return self.report.status

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.report.ended is not None

    def refresh(self) -> RunReport:
        """What the hub says of it now."""
        self.report = self._talk.get(f"/api/runs/{self.id}", RunReport)
        return self.report

    def reports(self, *, seconds: float | None = None) -> Iterator[RunReport]:
        """Each change as it happens, the present state first, until the run ends or `seconds` are over. The line may
        break meanwhile; the run does not mind. Raises Unavailable when it stays broken.
        """
        ends = None if seconds is None else self._talk.clock.monotonic() + seconds
        yield self.report
        broken = 0
        while not self.over:
            left = PARK_SECONDS if ends is None else min(PARK_SECONDS, ends - self._talk.clock.monotonic())
            if left <= 0:
                return
            asked = f"/api/runs/{self.id}?wait={left:.0f}&after={self.report.revision}"
            try:
                heard = self._talk.get(asked, RunReport, wait=WAIT_SECONDS + left)
            except Unavailable:
                broken += 1
                if broken == BROKEN_MOST:
                    raise
                time.sleep(0.2 * 2**broken)
                continue
            broken = 0
            if heard.revision != self.report.revision or heard.ended is not None:
                self.report = heard
                yield heard

    def progress(self) -> Iterator[Progress]:
        """The rounds as they are answered, those before now first."""
        told = 0
        for report in self.reports():
            yield from report.progress[told:]
            told = len(report.progress)

    def __iter__(self) -> Iterator[Progress]:
        return self.progress()

    def wait(self, *, seconds: float | None = None, say: Callable[[RunReport], None] = lambda _: None) -> Outcome:
        """What came out, once the run has ended. say: gets each change.

        Raises RunEnded where nothing came out, StillRunning after `seconds`.
        """
        for report in self.reports(seconds=seconds):
            say(report)
        if not self.over:
            raise StillRunning(
                f"run `{self.id}` has not ended yet", do=f"wait again, or watch it: `paroma run watch {self.id}`"
            )
        return self.result

    def cosigned(self, *, seconds: float = COSIGNED_SECONDS) -> bool:
        """Wait a moment until a quorum of the hospitals has cosigned what the log tells of this run; whether it has."""
        ends = self._talk.clock.monotonic() + seconds
        while self.report.proof is None or self.report.proof.cosigned is None:
            if self._talk.clock.monotonic() >= ends:
                return False
            time.sleep(LOOK_SECONDS)
            self.refresh()
        return True

    @property
    def result(self) -> Outcome:
        """What came out, as last heard. Raises RunEnded where there is nothing."""
        if self.report.result is None:
            why = self.report.reason or "it has no result yet"
            raise RunEnded(
                f"run `{self.id}` is {self.report.status}: {why}", do=f"see its story: `paroma run show {self.id}`"
            )
        return results.of(self.report.result, self.report.query)

    def summary(self) -> str:
        """Wait, then the result as a table."""
        return self.wait().summary()

    def to_dict(self) -> dict[str, object]:
        """Wait, then all figures by name."""
        return self.wait().to_dict()

    def stop(self) -> RunReport:
        """End it before its time."""
        self.report = self._talk.post(f"/api/runs/{self.id}/stop", {}, RunReport)
        return self.report

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.report.query}, {self.status}>"
