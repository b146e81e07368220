"""Small symmetric systems in Python floats: one IEEE 754 operation after the other, so that every machine gets the
same bits.

numpy's own would depend on the BLAS and on the processor.
"""

import math
from collections.abc import Sequence
from typing import Final

Vector = list[float]
Matrix = list[list[float]]
SINGULAR: Final = 1e-10  # a pivot below this part of its own diagonal: the column follows from those before it


class NotPositive(ArithmeticError):
    """The matrix is singular, as far as floats can tell. column: the first that follows from those before it."""

    def __init__(self, column: int) -> None:
        super().__init__(f"column {column}")
        self.column = column


def from_upper(packed: Sequence[float], d: int) -> Matrix:
    """A symmetric matrix from its upper triangle, row by row."""
    out = [[0.0] * d for _ in range(d)]
    values = iter(packed)
    for i in range(d):
        for j in range(i, d):
            out[i][j] = out[j][i] = next(values)
    return out


def cholesky(a: Matrix) -> Matrix:
    """L with L L' = a, lower. Raises NotPositive."""
    d = len(a)
    out = [[0.0] * d for _ in range(d)]
    for j in range(d):
        rest = a[j][j] - dot(out[j][:j], out[j][:j])
        if not rest > SINGULAR * abs(a[j][j]):
            raise NotPositive(j)
        out[j][j] = math.sqrt(rest)
        for i in range(j + 1, d):
            out[i][j] = (a[i][j] - dot(out[i][:j], out[j][:j])) / out[j][j]
    return out


def solve(factor: Matrix, b: Sequence[float]) -> Vector:
    """Solve L L' x = b for x."""
    d = len(b)
    y = [0.0] * d
    for i in range(d):
        y[i] = (b[i] - dot(factor[i][:i], y[:i])) / factor[i][i]
    x = [0.0] * d
    for i in reversed(range(d)):
        x[i] = (y[i] - dot([factor[k][i] for k in range(i + 1, d)], x[i + 1 :])) / factor[i][i]
    return x


def inverse(factor: Matrix) -> Matrix:
    """The inverse of L L'."""
    d = len(factor)
    return [solve(factor, [1.0 if i == j else 0.0 for i in range(d)]) for j in range(d)]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """The sum of products, in order."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += x * y
    return total
