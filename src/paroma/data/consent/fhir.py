"""FHIR R4 Consent, read for its meaning.

R4 forbids `provision.type` at the root and requires it inside; IHE PCF requires it at the root. Both are accepted, PCF
preferred: a rule without a type is not computable, and what is not computable is a no until somebody has asked. OPTIN
alone allows nothing. Elements that change the meaning of others and that we do not know (`modifierExtension`,
`implicitRules`) make it so, too.
"""

import re
from calendar import isleap, monthrange
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from paroma.data.consent.purposes import Coding
from paroma.data.consent.statement import ANYBODY, DataRef, Rule, Statement
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import PatientId, printable

STATUS: Final = frozenset({"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"})
RECEIVING: Final = frozenset(
    {"IRCP", "PRCP"}
)  # v3-ParticipationType: information recipient, primary information recipient
MOST_RULES = 200

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
_REFERENCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")


class NotAConsent(BadInput):
    """A Consent resource breaks FHIR R4 where we read it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this Consent cannot be read: {why}", do="correct it at its source and send it again")


class _Coding(msgspec.Struct):
    system: str = ""
    code: str = ""


class _Concept(msgspec.Struct):
    coding: list[_Coding] = []


class _Reference(msgspec.Struct):
    reference: str = ""


class _Period(msgspec.Struct):
    start: str | None = None
    end: str | None = None


class _Actor(msgspec.Struct):
    role: _Concept
    reference: _Reference


class _Data(msgspec.Struct):
    meaning: str
    reference: _Reference


class _Provision(msgspec.Struct, rename="camel"):
    type: str | None = None
    period: _Period | None = None
    data_period: _Period | None = None
    actor: list[_Actor] = []
    action: list[_Concept] = []
    security_label: list[_Coding] = []
    purpose: list[_Coding] = []
    class_: list[_Coding] = msgspec.field(name="class", default_factory=list)
    code: list[_Concept] = []
    data: list[_Data] = []
    provision: list["_Provision"] = []
    modifier_extension: msgspec.Raw | UnsetType = UNSET


class _Verification(msgspec.Struct):
    verified: bool


class _Consent(msgspec.Struct, rename="camel", tag_field="resourceType", tag="Consent"):
    id: Id
    status: str
    patient: _Reference
    date_time: str | None = None
    verification: list[_Verification] = []
    provision: _Provision | None = None
    modifier_extension: msgspec.Raw | UnsetType = UNSET
    implicit_rules: msgspec.Raw | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(_Consent)


def read(resource: bytes) -> Statement:
    """The statement in a Consent (JSON that the reader of the file found strict). Raises NotAConsent."""
    try:
        consent = _DECODER.decode(resource)
    except (msgspec.MsgspecError, RecursionError) as problem:
        raise NotAConsent(printable(str(problem).lower(), longest=200)) from problem
    if consent.status not in STATUS:
        raise NotAConsent(f"the status `{printable(consent.status)}` is none of FHIR's")
    kind, _, patient = consent.patient.reference.partition("/")
    if kind != "Patient" or not patient:
        raise NotAConsent("it names no patient as `Patient/...`")
    unclear = _unclear(consent)
    return Statement(
        id=consent.id,
        patient=PatientId(patient),
        given=instant(consent.date_time)[0] if consent.date_time else None,
        active=consent.status == "active",
        rule=None if unclear or consent.provision is None else _rule(consent.provision),
        unclear=unclear,
    )


def instant(text: str) -> tuple[float, float]:
    """First second of a FHIR date or dateTime, and the first after it: `2022` is a whole year. Dates are read in UTC.

    Raises NotAConsent.
    """
    try:
        if found := _DATE.fullmatch(text):
            year, month, day = int(found[1]), int(found[2] or 1), int(found[3] or 1)
            first = datetime(year, month, day, tzinfo=UTC)
            days = 1 if found[3] else monthrange(year, month)[1] if found[2] else 365 + isleap(year)
            return first.timestamp(), first.timestamp() + days * 86_400  # not by dates: 9999-12-31 has no day after it
        if not _TIME.fullmatch(text):
            raise NotAConsent(f"`{printable(text)}` is no date, nor an hour with its time zone")
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as problem:
        raise NotAConsent(f"`{printable(text)}` is no date") from problem
    second = moment.timestamp()
    return second, second + (1 if moment.microsecond == 0 else 1e-6)


def _unclear(consent: _Consent) -> str:
    root = consent.provision
    if root is None:
        return "it has no provision"
    if consent.modifier_extension is not UNSET or consent.implicit_rules is not UNSET:
        return "it follows rules that we do not know"
    if consent.verification and not any(v.verified for v in consent.verification):
        return "it was not verified"
    rules = [root, *root.provision]
    if any(inner.provision for inner in root.provision):
        return "its rules have exceptions to exceptions"
    if len(rules) > MOST_RULES:
        return f"it has more than {MOST_RULES} rules"
    if any(r.type not in {"permit", "deny"} for r in rules):
        return "a rule does not say whether it permits or denies"
    if any(r.modifier_extension is not UNSET for r in rules):
        return "it follows rules that we do not know"
    return ""


def _rule(provision: _Provision) -> Rule:
    starts, ends = _period(provision.period)
    data_starts, data_ends = _period(provision.data_period)
    receiving = [a for a in provision.actor if any(c.code in RECEIVING for c in a.role.coding)]
    return Rule(
        type="permit" if provision.type == "permit" else "deny",
        starts=starts,
        ends=ends,
        data_starts=data_starts,
        data_ends=data_ends,
        purposes=_codings(provision.purpose),
        recipients=tuple(
            a.reference.reference if _REFERENCE.fullmatch(a.reference.reference) else ANYBODY for a in receiving
        ),
        other_actors=len(receiving) < len(provision.actor),
        labels=_codings(provision.security_label),
        data=tuple(DataRef(d.meaning, d.reference.reference) for d in provision.data),
        actions=tuple(c.code for concept in provision.action for c in concept.coding),
        narrowed=bool(provision.class_ or provision.code),
        inner=tuple(_rule(p) for p in provision.provision),
    )


def _codings(codings: list[_Coding]) -> tuple[Coding, ...]:
    return tuple(Coding(c.system, c.code) for c in codings)


def _period(period: _Period | None) -> tuple[float | None, float | None]:
    if period is None:
        return None, None
    starts = instant(period.start)[0] if period.start else None
    ends = instant(period.end)[1] if period.end else None
    return starts, ends
