"""`num ~ age + sex + cp`: an outcome and the features that may explain it. Nothing else of the formula language is
read.
"""

import re
from dataclasses import dataclass
from typing import Final

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

LONGEST: Final = 4000  # characters
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*", re.ASCII)
_SIDE: Final = re.compile(r"([^<>=]+?)\s*(?:>\s*([-+]?[0-9]+(?:\.[0-9]+)?))?", re.ASCII)


class FormulaUnclear(BadInput):
    """The formula cannot be read in one way only."""


@dataclass(frozen=True, slots=True)
class Formula:
    """outcome: positive where greater than `above`. features: what may explain it, in order, once each."""

    outcome: str
    features: tuple[str, ...]
    above: float = 0.0


def parse(text: str) -> Formula:
    """Read `outcome ~ feature + feature`, or `outcome > 2 ~ ...`. The intercept is always there. Raises
    FormulaUnclear.
    """
    if len(text) > LONGEST:
        raise FormulaUnclear(f"the formula is longer than {LONGEST} characters", do="name fewer features")
    left, tilde, right = text.partition("~")
    if not tilde or "~" in right:
        raise FormulaUnclear("a formula has one `~`", do="write it as `outcome ~ feature + feature`")
    side = _SIDE.fullmatch(left.strip())
    if side is None:
        raise FormulaUnclear(
            f"`{printable(left.strip())}` is no outcome", do="write the outcome as `num` or as `num > 2`, left of `~`"
        )
    outcome = _name(side[1])
    features = tuple(_name(part) for part in right.split("+"))
    for at, feature in enumerate(features):
        if feature == outcome:
            raise FormulaUnclear(f"`{feature}` would explain itself", do="leave it out on the right of `~`")
        if feature in features[:at]:
            raise FormulaUnclear(f"`{feature}` is named twice", do="name each feature once")
    return Formula(outcome=outcome, features=features, above=float(side[2] or 0))


def _name(part: str) -> str:
    part = part.strip()
    if not part:
        raise FormulaUnclear("a name is missing beside `~` or `+`", do="write it as `outcome ~ feature + feature`")
    if part in {"0", "1"}:
        raise FormulaUnclear(f"`{part}` is no feature: the intercept is always there", do=f"leave out `{part}`")
    if not _NAME.fullmatch(part):
        raise FormulaUnclear(
            f"`{printable(part)}` is no feature: interactions, powers and functions are not read",
            do="name plain features, with `+` between them",
        )
    return part
