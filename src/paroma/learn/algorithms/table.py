"""The cohort's table (Arrow) as raw columns of numbers, a batch at a time."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute  # before the first fork: `cast` and `filter` load it, 30 ms each time
from numpy.typing import NDArray

from paroma.kernel.errors import BadInput
from paroma.learn.algorithms.query import Feature

F64 = NDArray[np.float64]


class TableUnfit(BadInput):
    """The cohort's table does not hold what the data set's description says. Names columns, never values."""


def columns(batch: pa.RecordBatch | pa.Table, features: Sequence[Feature]) -> dict[str, F64]:
    """The columns of `features`, as raw numbers. Raises TableUnfit."""
    return {feature.name: _column(batch, feature) for feature in features}


def _column(batch: pa.RecordBatch | pa.Table, feature: Feature) -> F64:
    if batch.schema.get_field_index(feature.name) < 0:
        raise TableUnfit(
            f"the table has no column `{feature.name}`", do="correct the data set's definition at this site"
        )
    column = batch.column(feature.name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _places_of_words(column.to_pylist(), feature)
    try:
        raw = _floats(column.cast(pa.float64()))
    except pa.ArrowException as problem:
        raise TableUnfit(
            f"column `{feature.name}` holds no numbers", do="correct the data set's definition"
        ) from problem
    if np.isinf(raw).any():
        raise TableUnfit(
            f"column `{feature.name}` holds a value that is not finite", do="correct the record at this site"
        )
    return _places_of_numbers(raw, feature) if feature.kind == "category" else raw


def _floats(column: pa.Array) -> F64:
    """The numbers of a float64 array, NaN where one is missing. Not `to_numpy`: where pandas is installed, that imports it."""
    valid, numbers = column.buffers()
    raw: F64 = np.frombuffer(numbers, np.float64, len(column) + column.offset)[column.offset :]
    if column.null_count == 0:
        return raw
    there = np.unpackbits(np.frombuffer(valid, np.uint8), count=len(column) + column.offset, bitorder="little")
    return np.where(there[column.offset :].astype(np.bool_), raw, np.nan)


def _places_of_words(words: Sequence[str | None], feature: Feature) -> F64:
    place = {level: float(i) for i, level in enumerate(feature.levels)}
    try:
        return np.array([np.nan if word is None else place[word] for word in words])
    except KeyError as problem:
        raise _level_unknown(feature) from problem


def _places_of_numbers(raw: F64, feature: Feature) -> F64:
    """Places of levels, from the levels' own numbers where they read as numbers, else from places."""
    try:
        levels = np.array([float(level) for level in feature.levels])
    except ValueError:
        levels = np.arange(len(feature.levels), dtype=np.float64)
    order = np.argsort(levels)
    at = np.minimum(np.searchsorted(levels[order], raw), len(levels) - 1)
    place = order[at].astype(np.float64)
    missing = np.isnan(raw)
    if not (missing | (levels[order[at]] == raw)).all():
        raise _level_unknown(feature)
    return np.where(missing, np.nan, place)


def _level_unknown(feature: Feature) -> TableUnfit:
    return TableUnfit(
        f"column `{feature.name}` holds a level that its description does not name",
        do="correct the data set's definition",
    )
