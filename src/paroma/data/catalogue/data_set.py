"""The description of a data set: which features it has and where in a FHIR record each is found, after SQL on FHIR's
ViewDefinition.

It holds no record and may be shown to everybody. The ranges are clinical and public, written down before any record
was read: inputs are scaled by them, so that scaling discloses nothing.
"""

import functools
from pathlib import Path
from typing import Literal

import msgspec

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import DataSetId, printable


class Code(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A code of a code system, with the words for it."""

    system: str
    code: str
    display: str = ""


class FeaturePath(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a feature stands in FHIR R4: the newest resource of this type with this code, and an element of it.

    element: dotted, `valueQuantity.value`, `gender`. For a CodeableConcept it is the code in the level's system.
    """

    resource: Literal["Patient", "Observation", "Condition", "Encounter"]
    code: Code | None = None
    element: str


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of a category or flag: what stands in the record, and the number that stands for it in the table."""

    value: float
    title: str
    stands: str  # `male`, `true`, or a code
    system: str = ""  # of the code


Special = Literal[
    "", "genetic", "biometric", "mental-health", "sexual-health", "reproductive", "addiction", "infectious-disease"
]
"""Kinds of data that hospitals' house rules speak of; empty: none of them."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column. special: what kind of data it is, where a hospital may want to keep it back."""

    name: str
    title: str
    kind: Literal["number", "category", "flag"]
    path: FeaturePath
    unit: str = ""  # UCUM; a value in another unit is left out
    levels: tuple[Level, ...] = ()  # of a category or flag; a flag has two, 0 and 1
    low: float = 0.0  # public clinical range, in `unit`
    high: float = 1.0
    outcome: bool = False
    special: Special = ""


class FeatureUnknown(BadInput):
    """A column is asked for that the data set does not have."""

    def __init__(self, missing: str, data_set: "DataSet") -> None:
        names = ", ".join(f"`{f.name}`" for f in data_set.features)
        super().__init__(
            f"the data set `{data_set.name}` has no feature `{printable(missing)}`", do=f"ask for some of {names}"
        )


class DataSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set that sites offer together."""

    id: DataSetId
    name: str  # readable, short: `heart`
    title: str
    description: str
    licence: str
    features: tuple[Feature, ...]

    def feature(self, name: str) -> Feature:
        """The feature of this name. Raises FeatureUnknown."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise FeatureUnknown(name, self)

    def digest(self) -> str:
        """SHA-256 of the canonical form: what a permit can bind."""
        return canonical.digest(self)


@functools.lru_cache(maxsize=64)  # the same bytes are the same description, and are read at every decision
def parse(content: bytes) -> DataSet:
    """A data set's description from JSON. Raises NotStrictJson; BadInput where it contradicts itself."""
    data_set = canonical.decode_as(content, DataSet)
    names = [feature.name for feature in data_set.features]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"the feature `{printable(twice)}` is described twice", do="name each feature once")
    for feature in data_set.features:
        _check(feature)
    return data_set


def load(path: Path) -> DataSet:
    """`parse` for a file. Raises OSError as well."""
    return parse(path.read_bytes())


def _check(feature: Feature) -> None:
    name = printable(feature.name)
    if not feature.low < feature.high:
        raise BadInput(f"the range of feature `{name}` is empty", do="write `low` below `high`")
    if (feature.kind == "number") == bool(feature.levels):
        raise BadInput(
            f"feature `{name}` is a {feature.kind}", do="give levels to a category or flag, and none to a number"
        )
    if feature.kind == "flag" and {level.value for level in feature.levels} != {0.0, 1.0}:
        raise BadInput(f"the flag `{name}` has other levels than 0 and 1", do="give it one level for each")
    if (feature.path.code is None) != (feature.path.resource in {"Patient", "Encounter"}):
        raise BadInput(
            f"the path of feature `{name}` is not clear", do="name a code for an Observation or Condition only"
        )


def columns(data_set: DataSet) -> list[dict[str, object]]:
    """The features as a computation sees them: name, kind (`number`, `truth`, `category`), range, levels' numbers."""
    return [
        {
            "name": feature.name,
            "kind": "truth" if feature.kind == "flag" else feature.kind,
            "low": feature.low,
            "high": feature.high,
            "levels": [f"{level.value:g}" for level in feature.levels] if feature.kind == "category" else [],
        }
        for feature in data_set.features
    ]


class Offered(msgspec.Struct, frozen=True, kw_only=True, tag="data-set-offered", forbid_unknown_fields=True):
    """A site tells the hub that it has records of this data set. Metadata only: no count, no value."""

    data_set: DataSet
