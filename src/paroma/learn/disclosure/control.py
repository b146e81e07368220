"""Statistical disclosure control, with ACRO's names (threshold, residual degrees of freedom, differencing).

Pure rules; who calls them has the numbers. A refusal never names a count below the floor. Source of the defaults:
ACRO 1.0 `default.yaml` (residual degrees of freedom 10), and the usual one parameter for ten rows; the floor comes
from the permit.
"""

from collections.abc import Sequence
from typing import Final

from paroma.kernel.errors import Refused

RESIDUAL_FREEDOM: Final = 10
ROWS_PER_PARAMETER: Final = 10
REST: Final = "all other"


class ThresholdNotMet(Refused):
    """Too few patients stand behind a figure."""


class Saturated(Refused):
    """Too few patients for so many parameters: the fit would describe persons."""


class DifferencingRefused(Refused):
    """The answer, beside one already disclosed, would describe fewer patients than the floor."""


def sits_out(removed: int, floor: int) -> bool:
    """Without privacy: must this site sit out the rest of the run, because its cohort shrank by less than the floor?

    Exact sums before and after would differ by the few who left. removed: patients of its last committed contribution
    in the run who are not in the next.
    """
    return 0 < removed < floor


def differencing(count: int, floor: int) -> None:
    """Raise DifferencingRefused when somebody, but fewer than `floor` patients, would follow from exact answers.

    count: patients by whom two answers differ, or to whom several of them come down. Never names the count. With
    nobody the numbers are the same.
    """
    if 0 < count < floor:
        raise refused()


def refused() -> DifferencingRefused:
    """The same for everybody."""
    return DifferencingRefused(
        "beside what was answered before, this would describe fewer patients than the floor (differencing)",
        do="use the earlier answers, ask about a part that differs by more patients, or apply with differential privacy",
    )


def told(count: float, to: int) -> int:
    """A count as it is told: the nearest multiple of the permit's `to`, halves up (rounding base 5 by default).

    Nobody's coming or going by itself shows, in most cases. It hides nothing from whoever has an exact mean beside it: what
    keeps answers apart is `memory`.
    """
    return (2 * round(count) + to) // (2 * to) * to


def threshold(count: float, floor: int, what: str) -> None:
    """Raise ThresholdNotMet when fewer than `floor` patients stand behind `what`. Never names the count."""
    if count < floor:
        raise ThresholdNotMet(
            f"fewer than {floor} patients stand behind {what} (threshold)",
            do="leave it out, put it together with another, or widen the cohort",
        )


def freedom(rows: int, parameters: int) -> None:
    """Raise Saturated unless rows - parameters >= 10 and rows >= 10 parameters (residual degrees of freedom)."""
    if rows - parameters < RESIDUAL_FREEDOM or rows < ROWS_PER_PARAMETER * parameters:
        raise Saturated(
            f"{parameters} parameters are too many for the rows (residual degrees of freedom)",
            do="name fewer features or levels, or widen the cohort",
        )


def merge(
    labels: Sequence[tuple[str, str]], counts: Sequence[int], floor: int
) -> tuple[tuple[tuple[str, str], int | None], ...]:
    """A histogram none of whose cells is below the floor: a small cell, also an empty one, joins its neighbour.

    labels: each cell's first and last edge. counts: whole, >= 0. Returns ((first edge, last edge), count) for the
    cells left, in order; one cell with None where even all together stay below the floor. Merging hides zeros, too:
    an empty cell says of everybody that they are elsewhere.
    """
    out: list[tuple[tuple[str, str], int]] = []
    for label, count in zip(labels, counts, strict=True):
        if out and out[-1][1] < floor:
            (first, _), before = out[-1]
            out[-1] = ((first, label[1]), before + count)
        else:
            out.append((label, count))
    if len(out) > 1 and out[-1][1] < floor:
        (_, last), few = out.pop()
        (first, _), before = out[-1]
        out[-1] = ((first, last), before + few)
    return tuple((label, count if count >= floor else None) for label, count in out)


def gather(labels: Sequence[str], counts: Sequence[int], floor: int) -> tuple[tuple[str, int | None], ...]:
    """Levels none of which is below the floor: the small ones are put together as `all other`.

    Where they stay below the floor together, the next smallest level joins them, or the total would give them away
    (secondary suppression). Returns the levels left in order, then `all other`; None where everything is below the
    floor.
    """
    order = sorted(range(len(counts)), key=lambda i: (counts[i], i))
    small = [i for i in order if counts[i] < floor]
    if not small:
        return tuple(zip(labels, counts, strict=True))
    for i in order[len(small) :]:
        if sum(counts[j] for j in small) >= floor:
            break
        small.append(i)
    rest = sum(counts[i] for i in small)
    kept = [(labels[i], counts[i]) for i in range(len(counts)) if i not in small]
    return (*kept, (REST, rest if rest >= floor else None))
