"""What a contribution is: named fields of ring integers, and the proof that their sum cannot overflow.

A real number travels as an integer of steps of 2^-scale_bits, cut toward zero (never lengthened, so a clipped row stays
clipped), modulo 2^ring. On the wire: the fields one after the other, little endian. Source: Bonawitz et al. 2017,
section 7.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from paroma.kernel.errors import BadInput

U = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
MOST_VALUES = 1 << 28
MOST_SCALE_BITS = 512
BLOCK = 1 << 15  # values


class LayoutInvalid(BadInput):
    """These fields cannot be added up in their rings without a chance of overflow, or are malformed."""


class ContributionInvalid(BadInput):
    """Values or bytes do not fit the layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`length` numbers under one name, in a ring of 32 or 64 bits, in steps of 2^-scale_bits.

    bound: no patient moves an element by more than this (same unit as the values); scale_bits may be negative.
    """

    name: str
    length: int
    ring: Literal[32, 64]
    scale_bits: int
    bound: float

    @property
    def size(self) -> int:
        """On the wire, bytes."""
        return self.length * self.ring // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The fields of one contribution, for sums over at most `sites` sites of at most `most` patients each.

    Overflow is excluded by proof when this is made: sites * most * bound * 2^scale_bits < 2^(ring - 1) for every field.
    Raises LayoutInvalid.
    """

    fields: tuple[Field, ...]
    sites: int
    most: int

    def __post_init__(self) -> None:
        if not self.fields or self.sites < 1 or self.most < 1:
            raise LayoutInvalid("a layout needs a field, a site and a patient", do="give each at least one")
        if len({field.name for field in self.fields}) != len(self.fields):
            raise LayoutInvalid("two fields have one name", do="name each field once")
        for field in self.fields:
            _prove(field, self.sites, self.most)
        if sum(field.length for field in self.fields) > MOST_VALUES:
            raise LayoutInvalid(f"a layout has more than {MOST_VALUES} values", do="split the question")

    @property
    def size(self) -> int:
        """Of a contribution on the wire, bytes."""
        return sum(field.size for field in self.fields)

    def encode(self, values: Mapping[str, npt.ArrayLike]) -> bytearray:
        """One site's values on the wire, not yet masked.

        values: an array of `length` numbers for each field. Reals are put on the grid, cut toward zero; integer
        arrays are steps of the grid already. Raises ContributionInvalid for other names, shapes, non-finite values,
        or values that exceed most * bound.
        """
        if set(values) != {field.name for field in self.fields}:
            raise ContributionInvalid("the fields are not those of the layout", do="give exactly the layout's fields")
        out = bytearray(self.size)
        for field, part in self.parts(out):
            _on_grid(field, np.asarray(values[field.name]), self.most, into=part)
        return out

    def decode(self, total: bytes | bytearray | memoryview) -> dict[str, npt.NDArray[np.float64]]:
        """The sum as real numbers (float64, nearest), from wire bytes without masks. Raises ContributionInvalid."""
        return {
            name: np.ldexp(steps.astype(np.float64), -self._field(name).scale_bits)
            for name, steps in self.steps(total).items()
        }

    def steps(self, total: bytes | bytearray | memoryview) -> dict[str, npt.NDArray[np.int64]]:
        """The sum as signed steps of the grid, exact. Raises ContributionInvalid."""
        return {
            field.name: part.view(np.int32 if field.ring == 32 else np.int64).astype(np.int64)
            for field, part in self.parts(total)
        }

    def parts(self, data: bytes | bytearray | memoryview) -> list[tuple[Field, U]]:
        """Each field with its ring integers, as views into `data`. Raises ContributionInvalid for another size."""
        if len(memoryview(data).cast("B")) != self.size:
            raise ContributionInvalid(
                f"a contribution has {len(data)} bytes, not {self.size}", do="send the whole upload"
            )
        out: list[tuple[Field, U]] = []
        at = 0
        for field in self.fields:
            kind: npt.DTypeLike = "<u4" if field.ring == 32 else "<u8"
            out.append((field, np.frombuffer(data, kind, field.length, at)))
            at += field.size
        return out

    def _field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


def _prove(field: Field, sites: int, most: int) -> None:
    if (
        field.ring not in {32, 64}
        or field.length < 1
        or not 0 < field.bound < float("inf")
        or abs(field.scale_bits) > MOST_SCALE_BITS
    ):
        raise LayoutInvalid(
            f"field `{field.name}` is malformed", do="give a ring of 32 or 64, a length and a finite bound > 0"
        )
    greatest = sites * most * Fraction(field.bound) * Fraction(2) ** field.scale_bits
    if greatest >= 2 ** (field.ring - 1):
        raise LayoutInvalid(
            f"the sum of field `{field.name}` could overflow its {field.ring}-bit ring",
            do="take a larger ring, fewer scale bits, or a lower cap of patients",
        )


def _on_grid(field: Field, values: npt.NDArray[np.generic], most: int, *, into: U) -> None:
    if values.shape != (field.length,):
        raise ContributionInvalid(
            f"field `{field.name}` has shape {values.shape}, not ({field.length},)", do="send one vector"
        )
    if values.dtype.kind not in "iuf":
        raise ContributionInvalid(f"field `{field.name}` holds no numbers", do="send integers or reals")
    limit = int(most * Fraction(field.bound) * Fraction(2) ** field.scale_bits)
    for at in range(0, field.length, BLOCK):  # block by block: what is in between stays in the cache
        steps = values[at : at + BLOCK]
        if steps.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what overflows is not finite, and refused below
                steps = np.trunc(np.multiply(steps, 2.0**field.scale_bits, dtype=np.float64))  # exact: a power of two
            if not np.isfinite(steps).all():
                raise ContributionInvalid(
                    f"field `{field.name}` has a value that is not finite", do="look at the computation"
                )
        if int(steps.max()) > limit or int(steps.min()) < -limit:
            raise _beyond(field)
        into[at : at + BLOCK] = steps.astype(np.int64).view(np.uint64)  # modulo 2^ring


def _beyond(field: Field) -> ContributionInvalid:
    return ContributionInvalid(f"field `{field.name}` exceeds its bound", do="clip before encoding")
