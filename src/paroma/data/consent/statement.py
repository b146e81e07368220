"""What a patient has said, in our own small types: statements read from FHIR, choices made here, and what the law
orders.
"""

from typing import Final, Literal

import msgspec

from paroma.data.consent.purposes import Coding
from paroma.kernel.ids import PatientId

ANYBODY: Final = "?"
"""Stands among recipients for one who is named in a way that we cannot compare."""


class DataRef(msgspec.Struct, frozen=True, array_like=True):
    """Data that a rule is about. meaning: `instance`, `related`, `authoredby`, `dependents`."""

    meaning: str
    reference: str  # `Encounter/12`


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A provision. What is empty says nothing; what is filled must hold; entries of one list are alternatives."""

    type: Literal["permit", "deny"]
    starts: float | None = None  # seconds since 1970, inside
    ends: float | None = None  # outside
    data_starts: float | None = None  # the data's own date
    data_ends: float | None = None
    purposes: tuple[Coding, ...] = ()
    recipients: tuple[str, ...] = ()  # references: `Organization/1`
    other_actors: bool = False  # names people in roles that we do not judge
    labels: tuple[Coding, ...] = ()
    data: tuple[DataRef, ...] = ()
    actions: tuple[str, ...] = ()
    narrowed: bool = False  # by class or code of resources, which we do not judge
    inner: tuple["Rule", ...] = ()  # exceptions; they have none themselves


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One FHIR Consent. It counts while `active`; where it is not computable it is a no until somebody has asked."""

    id: str
    patient: PatientId
    given: float | None  # seconds since 1970
    active: bool
    rule: Rule | None  # None: not computable
    unclear: str = ""  # why it is not


class Scope(msgspec.Struct, frozen=True):
    """What a choice is about: `everything`, or one `purpose` or `study`, whose code or id stands in `of`."""

    kind: Literal["everything", "purpose", "study"]
    of: str = ""

    def covers(self, *, purpose: str, study: str) -> bool:
        """Whether a use for `purpose` in `study` falls under it."""
        return {"everything": True, "purpose": self.of == purpose, "study": self.of == study}[self.kind]


EVERYTHING = Scope("everything")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a patient, or somebody for them, chose here; the receipt's facts."""

    number: str  # `7K2M-QX4P`, printed on the receipt
    seq: int  # place in the one order of all changes of consent at this site
    patient: PatientId
    scope: Scope
    says: Literal["yes", "no"]
    by: str  # `patient`, `guardian`, `desk`
    at: float  # seconds since 1970
    salt: bytes  # 32 random bytes, for the commitment in the site log


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A use that the law orders whatever patients chose (EHDS Art. 71(4)); entered by the site's officer."""

    id: str
    purpose: str
    study: str  # its id, or empty for every study of the purpose
    law: str  # the words that a patient reads: "Ohio Revised Code 3701.23"
    starts: float
    ends: float


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A use that is asked about. basis: what must be there for a yes where the law does not order the use."""

    purpose: str  # code of EHDS Art. 53
    study: str = ""
    recipients: tuple[str, ...] = ()  # all references under which the consents may know who receives; empty: unknown
    basis: Literal["consent", "no-opt-out"] = "consent"


class Verdict(msgspec.Struct, frozen=True):
    """May this patient be used? `rule` names what allowed or refused it."""

    allowed: bool
    rule: str
