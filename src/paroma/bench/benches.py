"""Which benches there are. Each is a function of its own module, loaded when it is named."""

from collections.abc import Callable
from importlib import import_module
from typing import Final

from paroma.bench.rows import Row
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

NAMES: Final = ("round", "secagg", "heart", "withdraw", "kill", "start")
Say = Callable[[str], None]


class BenchUnknown(BadInput):
    """There is no bench of this name."""


def run(name: str, *, say: Say) -> tuple[Row, ...]:
    """Measure one figure. say: gets a sentence at each step. Raises BenchUnknown, ParomaError."""
    if name not in NAMES:
        raise BenchUnknown(f"there is no bench `{printable(name)}`", do=f"name one of {', '.join(NAMES)}")
    # the module of `round` must not hide the built-in function of that name
    module = import_module(f"paroma.bench.{name}_bench")
    measure: Callable[[Say], tuple[Row, ...]] = module.measure
    return measure(say)
