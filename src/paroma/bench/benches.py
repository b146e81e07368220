"""Which benches there are. Each is `measure` in a module of its own, loaded when it is named."""

from collections.abc import Callable
from typing import Final

from paroma.bench.rows import Row
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

NAMES: Final = ("round", "secagg", "heart", "withdraw", "kill", "start", "pdp")
Say = Callable[[str], None]


class BenchUnknown(BadInput):
    """There is no bench of this name."""


def run(name: str, *, say: Say, kills: int | None = None) -> tuple[Row, ...]:
    """Measure one figure. say: gets a sentence at each step. kills: a shorter `kill`. Raises BadInput, ParomaError."""
    if kills is not None and name != "kill":
        raise BadInput("only the bench `kill` counts kills", do="leave `--kills` out, or run `paroma bench kill`")
    match name:
        case "round":
            from paroma.bench.rounds import measure
        case "secagg":
            from paroma.bench.secagg import measure
        case "heart":
            from paroma.bench.hearts import measure
        case "withdraw":
            from paroma.bench.withdrawals import measure
        case "kill":
            from paroma.bench import kills as killing

            return killing.measure(say, kills)
        case "start":
            from paroma.bench.starts import measure
        case "pdp":
            from paroma.bench.pdp import measure
        case _:
            raise BenchUnknown(f"there is no bench `{printable(name)}`", do=f"name one of {', '.join(NAMES)}")
    return measure(say)
