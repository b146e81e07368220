"""One line of a bench: what was measured, beside what it is compared with, the goal, and whether it holds."""

from typing import Final, Literal

import msgspec

from paroma.bench.spread import Spread


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A figure. ratio: how many times better than `against_value`, or None. goal: in words. holds: the goal is met."""

    what: str
    value: float | None
    unit: str
    against: str = ""
    against_value: float | None = None
    ratio: float | None = None
    goal: str
    holds: bool


Sense = Literal["<=", ">=", "=="]


def bound(what: str, value: float, unit: str, sense: Sense, goal: float) -> Row:
    """A figure with a goal of its own."""
    return Row(
        what=what, value=value, unit=unit, goal=f"{sense} {goal:g} {unit}".strip(), holds=_meets(value, sense, goal)
    )


def against(
    what: str, value: float, unit: str, peer: str, peer_value: float, *, times: float, sense: Sense = ">="
) -> Row:
    """A figure beside a peer's. ratio: theirs over ours; the goal is on the ratio."""
    ratio = peer_value / value if value else float("inf")
    return paired(what, value, unit, peer, peer_value, ratio, sense, times)


def share(what: str, value: float, unit: str, other: str, other_value: float, *, most: float) -> Row:
    """A figure that may be at most `most` times another one. ratio: ours over the other."""
    ratio = value / other_value if other_value else float("inf")
    return paired(what, value, unit, other, other_value, ratio, "<=", most)


def paired(
    what: str, value: float, unit: str, other: str, other_value: float, ratio: float, sense: Sense, goal: float
) -> Row:
    """A figure beside another one. ratio: as measured, such as the median of pairs' ratios; the goal is on it."""
    return Row(
        what=what,
        value=value,
        unit=unit,
        against=other,
        against_value=other_value,
        ratio=ratio,
        goal=f"ratio {sense} {goal:g}",
        holds=_meets(ratio, sense, goal),
    )


def interval(what: str, found: Spread) -> tuple[Row, Row]:
    """How sure a paired ratio is."""
    told = f"{what}: 95 % interval of the median of {found.pairs} ratios"
    return printed(f"{told}, low", found.low, ""), printed(f"{told}, high", found.high, "")


def caught(defect: str, found: bool, unit: str = "caught") -> Row:
    """A planted defect: the bench counts only if it sees it."""
    return Row(what=f"planted defect: {defect}", value=float(found), unit=unit, goal="== 1", holds=found)


def printed(what: str, value: float, unit: str) -> Row:
    """A figure that is only printed: it has no goal, so it always holds."""
    return Row(what=what, value=value, unit=unit, goal="printed", holds=True)


def missing(what: str, why: str, unit: str = "") -> Row:
    """A figure that could not be measured: it does not hold, and says why."""
    return Row(what=f"{what}: {why}", value=None, unit=unit, goal="measured", holds=False)


HEAD: Final = ("what", "result", "beside", "goal", "")
"""Of the table whose lines are `cells`."""


def cells(row: Row) -> tuple[str, str, str, str, str]:
    """A row for people: what, result, beside what (with the ratio), goal, verdict."""
    result = "-" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    beside = "" if row.against_value is None else f"{row.against} {row.against_value:.4g}"
    ratio = "" if row.ratio is None else f" (ratio {row.ratio:.4g})"
    return row.what, result, beside + ratio, row.goal, "holds" if row.holds else "FALLS SHORT"


def _meets(value: float, sense: Sense, goal: float) -> bool:
    match sense:
        case "<=":
            return value <= goal
        case ">=":
            return value >= goal
        case "==":
            return value == goal
