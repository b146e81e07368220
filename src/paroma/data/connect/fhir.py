"""FHIR R4 as NDJSON, read strictly: one resource a line, limits before parsing, original bytes kept.

Standard JSON readers keep the last of two equal keys, read NaN and let lone surrogates through; here each is refused,
as are lines beyond 1 MiB (found without reading further, so that a line of 2 GB costs 1 MiB of memory), deep nesting
and long numbers. Of a resource only the fields that we use are decoded and checked, by types; everything else stays as
it came, for portability.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final, Literal

import msgspec
from msgspec import Meta

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId, printable

LIMITS: Final = canonical.Limits(most_bytes=1 << 20, most_depth=64, most_items=50_000, most_digits=40)
ID: Final = r"^[A-Za-z0-9\-.]{1,64}$"

Id = Annotated[str, Meta(pattern=ID)]


class NotFhir(BadInput):
    """A line of a file cannot be taken. The sentence names file and line."""

    def __init__(self, file: str, line: int, why: str, *, do: str) -> None:
        super().__init__(f"`{printable(file)}`, line {line}: {why}", do=do)
        self.file = file
        self.line = line


class Coding(msgspec.Struct, frozen=True):
    """A code of a code system."""

    system: str = ""
    code: str = ""


class CodeableConcept(msgspec.Struct, frozen=True):
    """Codes for one thing, and words."""

    coding: tuple[Coding, ...] = ()
    text: str = ""


class Quantity(msgspec.Struct, frozen=True):
    """A measured amount. code: UCUM."""

    value: float | None = None
    comparator: Literal["<", "<=", ">=", ">"] | None = None
    unit: str = ""
    system: str = ""
    code: str = ""


class Reference(msgspec.Struct, frozen=True):
    """`Patient/12`."""

    reference: str = ""


class Patient(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of Patient that we use."""

    id: Id
    gender: Literal["male", "female", "other", "unknown"] | None = None
    birth_date: Annotated[str, Meta(pattern=r"^\d{4}(-\d\d(-\d\d)?)?$")] | None = None


class Encounter(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of Encounter that we use."""

    id: Id
    status: str
    subject: Reference


class Observation(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of Observation that we use."""

    id: Id
    status: str
    code: CodeableConcept
    subject: Reference
    effective_date_time: str = ""
    value_quantity: Quantity | None = None
    value_codeable_concept: CodeableConcept | None = None
    value_boolean: bool | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of Condition that we use."""

    id: Id
    code: CodeableConcept
    subject: Reference
    verification_status: CodeableConcept = CodeableConcept()
    recorded_date: str = ""


class Other(msgspec.Struct, frozen=True):
    """Any other resource: kept when it says whose it is."""

    id: Id
    subject: Reference | None = None
    patient: Reference | None = None


Used = Patient | Encounter | Observation | Condition
DECODERS: Final[dict[str, msgspec.json.Decoder[Used]]] = {
    kind.__name__: msgspec.json.Decoder(kind) for kind in (Patient, Encounter, Observation, Condition)
}
_OTHER: Final = msgspec.json.Decoder(Other)


class _Kind(msgspec.Struct, rename="camel"):
    resource_type: str


_KIND: Final = msgspec.json.Decoder(_Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One resource of one patient."""

    kind: str
    id: str
    patient: PatientId
    line: int
    content: bytes  # as it came, without the line's end


def read(stream: BinaryIO, file: str) -> Iterator[Record | NotFhir]:
    """The resources in `stream`, one a line; for a line that cannot be taken, why (given, not raised, so that all are
    reported).

    A resource that belongs to no patient is such a line. After a line that is too long nothing more is read.
    """
    number = 0
    while content := stream.readline(LIMITS.most_bytes + 2):
        number += 1
        content = content.rstrip(b"\r\n")
        if len(content) > LIMITS.most_bytes:
            yield NotFhir(
                file,
                number,
                f"it is longer than {LIMITS.most_bytes} bytes",
                do="write one resource a line, without large attachments",
            )
            return
        if content.strip():
            try:
                yield _record(content, file, number)
            except NotFhir as refused:
                yield refused


def _record(content: bytes, file: str, line: int) -> Record:
    try:
        canonical.decode(content, limits=LIMITS)
    except canonical.NotStrictJson as problem:
        raise NotFhir(file, line, problem.message.removeprefix("this JSON is refused: "), do=problem.do) from problem
    try:
        kind = _KIND.decode(content).resource_type
        if kind == "Patient":
            return Record(kind, (name := DECODERS[kind].decode(content).id), PatientId(name), line, content)
        if kind in DECODERS:
            known = DECODERS[kind].decode(content)
            return Record(kind, known.id, _owner(known.subject, file, line), line, content)  # type: ignore[union-attr]
        other = _OTHER.decode(content)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise NotFhir(
            file, line, printable(str(problem).lower(), longest=200), do="send FHIR R4 resources, one a line"
        ) from problem
    return Record(kind, other.id, _owner(other.subject or other.patient, file, line), line, content)


def _owner(reference: Reference | None, file: str, line: int) -> PatientId:
    kind, _, name = (reference.reference if reference else "").partition("/")
    if kind != "Patient" or not name or len(name) > 64 or not _is_id(name):
        raise NotFhir(
            file,
            line,
            "it belongs to no patient by a reference of the form `Patient/...`",
            do="leave it out, or name its patient",
        )
    return PatientId(name)


def _is_id(name: str) -> bool:
    return all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
