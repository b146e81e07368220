"""Figures as plain text, for a terminal and a notebook alike."""

import math
from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Rows under a head, two blanks between columns; columns whose place is in `right` stand to the right."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, the lowest the shortest. Values that are not finite are left out."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = high - low
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1)) if span else 0] for value in finite)


def bars(values: Sequence[float | None]) -> str:
    """One bar a count, from nothing; a count that is not told is a blank."""
    most = max((value for value in values if value is not None), default=0.0)
    last = len(_BARS) - 1
    return "".join(" " if v is None else _BARS[round(max(v, 0.0) / most * last) if most > 0 else 0] for v in values)


def figure(value: float, digits: int = 3) -> str:
    """A figure with so many decimals; very large and very small ones in scientific form, as statsmodels has it."""
    if value != 0 and (abs(value) >= 1e4 or abs(value) < 1e-4):
        return f"{value:.{digits}g}"
    return f"{value:.{digits}f}"


def maybe(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where it is not told."""
    return "-" if value is None else figure(value, digits)
