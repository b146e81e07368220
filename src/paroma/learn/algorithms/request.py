"""What the site tells the worker, and what the worker answers. Both stay at the site."""

import msgspec

from paroma.learn.algorithms.query import Feature, Query, Step
from paroma.learn.dp.bound import Bound
from paroma.learn.secagg.layout import Layout


class Request(msgspec.Struct, frozen=True, kw_only=True, tag="compute", forbid_unknown_fields=True):
    """What the worker is told.

    model: the features that the query explains or describes, in its order; features: all columns that it reads.
    bound: None when differential privacy is off.
    """

    query: Query
    model: tuple[Feature, ...]
    features: tuple[Feature, ...]
    step: Step
    layout: Layout
    bound: Bound | None
    most_patients: int


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag="computed", forbid_unknown_fields=True):
    """What the worker answers; it stays at the site.

    totals: int64, little-endian, the layout's fields one after the other, each in steps of 2^-scale_bits. used: bit i
    (lowest first) says that row i was read; selected: that the query is about it, too. rows: how many rows took part
    in the totals.
    """

    totals: bytes
    used: bytes
    selected: bytes
    rows: int
