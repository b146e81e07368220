"""Regressions one after the other, whatever is killed meanwhile: what the bench of kills keeps going."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from paroma.bench.four import FORMULA, Four
from paroma.kernel.errors import ParomaError, Unavailable
from paroma.sdk.run import Run
from paroma.sdk.study import Study

EPSILON: Final = 8.0
QUESTIONS: Final = 400
STEPS: Final = 12
RUN_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 120.0


@dataclass(slots=True)
class Heard:
    """What the hub acknowledged to the scientist. runs: opened. answers: (run, step) that were reported as answered."""

    runs: list[str] = field(default_factory=list)
    answers: set[tuple[object, object]] = field(default_factory=set)
    finished: int = 0


class Training:
    """Under one permit after the other. `start`, `stop`; `heard` may be read once it has stopped."""

    def __init__(self, running: Four) -> None:
        self.heard = Heard()
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="training", daemon=True)
        self._asked = 0
        self._left = 0
        self._study: Study | None = None

    def start(self) -> None:
        """Agree on a permit, then train. Raises ParomaError."""
        self._study = self._agree()
        self._thread.start()

    def stop(self) -> None:
        """Wait for the last run."""
        self._over.set()
        self._thread.join(3 * RUN_SECONDS)

    def once(self) -> None:
        """One run that must finish, under a fresh permit. Raises ParomaError."""
        study = self._agree()
        run = study.logistic(FORMULA, ridge=0.5, steps=STEPS)
        run.wait(seconds=STEADY_SECONDS)
        self._take(run)

    def _agree(self) -> Study:
        self._left = QUESTIONS
        return self._running.agree("Survival", ("logistic",), questions=QUESTIONS, epsilon=EPSILON)

    def _go(self) -> None:
        while not self._over.is_set():
            self._asked += 1
            try:
                if self._study is None or self._left < STEPS:
                    self._study = self._agree()
                run = self._study.logistic(FORMULA, ridge=self._asked / 1000, steps=STEPS)
            except Unavailable:  # the hub or an officer's site was just killed
                time.sleep(0.2)
            except ParomaError:  # nothing more under this permit
                self._study = None
                time.sleep(0.2)
            else:
                self._watch(run)

    def _watch(self, run: Run) -> None:
        self.heard.runs.append(run.id)
        ends = time.monotonic() + RUN_SECONDS
        while not run.over and (left := ends - time.monotonic()) > 0 and not self._over.is_set():
            with suppress(Unavailable):
                for _report in run.reports(seconds=min(left, 5.0)):
                    self._take(run)
        self.heard.finished += run.status == "finished"
        self._left -= max(run.report.step, STEPS)

    def _take(self, run: Run) -> None:
        self.heard.answers |= {(run.id, one.step) for one in run.report.progress}
