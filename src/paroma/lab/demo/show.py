"""What the demo prints: one line a scene, rounds drawn while they run, a table at the end. People read it; `--json` does not."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TextIO

_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How a scene went. seconds: its own, without what it needed. sentence: what it showed, or what failed."""

    scene: int
    title: str
    sentence: str
    held: bool
    seconds: float


class Screen:
    """Where the demo is watched. quiet: print nothing (a scene that another one needs, or `--json`)."""

    def __init__(self, out: TextIO | None = None, *, quiet: bool = False) -> None:
        self._out = out or sys.stdout
        self.quiet = quiet
        self._live = self._out.isatty()
        self._shown = 0  # rounds in the drawing that stands there

    def say(self, line: str) -> None:
        """A line."""
        if not self.quiet:
            print(line, file=self._out, flush=True)

    def detail(self, line: str) -> None:
        """A line beneath the scene's own."""
        self.say(f"      {line}")

    def draw(self, title: str, values: Sequence[float], *, of: int) -> None:
        """The rounds so far, redrawn in place on a terminal."""
        if not self.quiet and self._live and values and len(values) != self._shown:
            self._shown = len(values)
            line = f"      {title} {spark(values)} round {len(values)} of at most {of}: {values[-1]:.4f}"
            print(f"\r{line[:_WIDTH]:<{_WIDTH}}", end="", file=self._out, flush=True)

    def drawn(self, title: str, values: Sequence[float]) -> None:
        """The rounds, all of them."""
        self._shown = 0
        if not self.quiet and values:
            start = "\r" if self._live else ""
            line = f"      {title} {spark(values)} {len(values)} rounds, {values[0]:.4f} to {values[-1]:.4f}"
            print(f"{start}{line:<{_WIDTH if self._live else 0}}", file=self._out, flush=True)

    def scene(self, held: Held) -> None:
        """The line of a scene."""
        mark = "✓" if held.held else "✗"
        self.say(f"  {held.scene} {mark} {held.sentence}  ({held.seconds:.1f} s)")

    def summary(self, scenes: Sequence[Held]) -> None:
        """All scenes as a table."""
        width = max(len(one.title) for one in scenes)
        self.say("")
        self.say(f"  scene  {'what'.ljust(width)}  held     seconds")
        for one in scenes:
            self.say(
                f"  {one.scene:>5}  {one.title.ljust(width)}  {'yes' if one.held else 'NO ':<4} {one.seconds:>10.1f}"
            )
        self.say(f"  {'':>5}  {'in all'.ljust(width)}  {'':<4} {sum(one.seconds for one in scenes):>10.1f}")


def spark(values: Sequence[float]) -> str:
    """A line of bars, the lowest value lowest."""
    low, high = min(values), max(values)
    steps = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / steps * (len(_BARS) - 1))] for value in values)
