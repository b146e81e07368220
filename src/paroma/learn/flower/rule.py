"""The update rule of the platform: everybody who knows the sums computes the same next model, to the last bit.

A ServerApp may average, which is this rule; what it asks for next is compared with it, and the platform's own numbers
are sent. A ServerApp that does anything else to the model (momentum, adaptive steps) has a rule that sites cannot
recompute: it needs differential privacy.
"""

from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from paroma.kernel.errors import BadInput
from paroma.learn.flower.messages import Model, Shape

F64 = npt.NDArray[np.float64]

_KINDS: Final = {4: "<f4", 8: "<f8"}
MOST_WEIGHTS: Final = 200_000_000
MOST_ARRAYS: Final = 10_000


class ModelInvalid(BadInput):
    """A model whose shapes and numbers do not fit, or that holds a number that is not finite."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the model cannot be used: {why}",
            do="give finite float32 or float64 arrays whose shapes stay the same in every round",
        )


def size(shapes: tuple[Shape, ...]) -> int:
    """The number of weights. Raises ModelInvalid."""
    if not 0 < len(shapes) <= MOST_ARRAYS or len({s.name for s in shapes}) != len(shapes):
        raise ModelInvalid("it has no arrays, too many, or two of one name")
    if any(d < 0 for s in shapes for d in s.dims):
        raise ModelInvalid("an array has a negative dimension")
    total = sum(prod(s.dims) for s in shapes)
    if not 0 < total <= MOST_WEIGHTS:
        raise ModelInvalid(f"it has {total} weights, at least 1 and at most {MOST_WEIGHTS} are allowed")
    return total


def vector(model: Model) -> F64:
    """The weights of a model as one vector, (weights,). Raises ModelInvalid."""
    if len(model.values) != 8 * size(model.shapes):
        raise ModelInvalid("its shapes and its numbers do not have the same length")
    values = np.frombuffer(model.values, "<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ModelInvalid("a number is not finite")
    return values


def rounded(shapes: tuple[Shape, ...], values: F64) -> Model:
    """A model of these weights, each rounded to the width of its array. Raises ModelInvalid."""
    if values.shape != (size(shapes),):
        raise ModelInvalid("its shapes and its numbers do not have the same length")
    out = np.empty(len(values), "<f8")
    at = 0
    with np.errstate(over="ignore"):  # what overflows single precision is found just below
        for shape in shapes:
            n = prod(shape.dims)
            out[at : at + n] = values[at : at + n].astype(_KINDS[shape.width])
            at += n
    if not np.isfinite(out).all():
        raise ModelInvalid("a number is not finite")
    return Model(shapes=shapes, values=out.tobytes())


def arrays(model: Model) -> dict[str, npt.NDArray[np.floating]]:
    """The arrays of a model by name, in their own shapes and widths. Raises ModelInvalid."""
    values, out, at = vector(model), {}, 0
    for shape in model.shapes:
        n = prod(shape.dims)
        out[shape.name] = values[at : at + n].astype(_KINDS[shape.width]).reshape(shape.dims)
        at += n
    return out


def mean(model: Model, total: F64, weight: float) -> Model:
    """The model plus the mean change: `total / weight`, each number rounded to the width of its array.

    total: (weights,), the sum over sites of weight x change. weight: the sum of the weights, > 0.
    Every step is a single IEEE 754 division, addition or rounding, so that every machine gets the same bits. Raises
    ModelInvalid. Source: McMahan et al. 2017 (arXiv:1602.05629), Algorithm 1, written for changes in place of models.
    """
    if not weight > 0:
        raise ModelInvalid("the weights add up to nothing")
    return rounded(model.shapes, vector(model) + total / weight)


def follows(asked: Model, expected: Model, sites: int) -> bool:
    """Whether what a ServerApp asks for is the mean, up to the rounding of averaging `sites` equal replies in the
    width of each array.
    """
    if asked.shapes != expected.shapes:
        return False
    wanted, got = vector(expected), vector(asked)
    steps = np.concatenate([np.full(prod(s.dims), 2.0**-23 if s.width == 4 else 2.0**-52) for s in asked.shapes])
    # n products and n sums, each off by half a step of a number at most as large as the mean itself
    return bool((np.abs(got - wanted) <= (sites + 2) * steps * np.abs(wanted) + 2.0**-126).all())
