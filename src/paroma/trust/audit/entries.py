"""What is sealed in a log: canonical JSON with a kind, a time, and facts.

A log can never forget, so no entry holds a patient: only commitments, whose salts are erased with the patient's keys.
`seal` refuses what looks like a patient's id, wherever it stands.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from paroma.kernel import canonical
from paroma.kernel.canonical import Json
from paroma.kernel.errors import BadInput, Refused
from paroma.trust.audit.tiles import MOST_ENTRY, EntryTooLong

SALT = 32
"""Bytes of a salt: one commitment each, so that nobody can tell that two are of the same patient."""

_DOMAIN = b"paroma/commitment/v1\n"
_KIND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_COMMITMENT = re.compile(r"[0-9a-f]{64}")
_PATIENT_ID = re.compile(
    r"(?i)\bpat(?:ient)?-[0-9a-hjkmnp-tv-z]{16}|\bPatient/[A-Za-z0-9]"
)  # ours, and a FHIR reference
_OF_PATIENT = re.compile(r"(?i)patient|guardian|birth|\bmrn\b")
_OF_ONE_PATIENT = re.compile(
    r"(?i)patient(?!s)|guardian|birth|\bmrn\b"
)  # `least_patients` is a number that a permit names


class EntryInvalid(BadInput):
    """The bytes are no entry in canonical form."""


class PatientInClear(Refused):
    """A fact would write a patient into a log that never forgets."""


class CommitmentInvalid(Refused):
    """The salt and the value do not open this commitment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a log, read."""

    number: int  # its place, from 0; -1 where it was read by itself
    kind: str
    at: float  # seconds since 1970, as its writer's clock had it
    facts: Mapping[str, Json]
    sealed: bytes  # the exact bytes that the log holds


def seal(kind: str, at: float, facts: Mapping[str, Json]) -> bytes:
    """The bytes of an entry: canonical JSON of kind, at and the facts.

    kind: lower-case words with hyphens. at: seconds since 1970. Raises BadInput, PatientInClear, EntryTooLong.
    """
    if not _KIND.fullmatch(kind):
        raise EntryInvalid(f"`{kind}` cannot be a kind of entry", do="use lower-case words with hyphens")
    if "kind" in facts or "at" in facts:
        raise EntryInvalid("a fact is called `kind` or `at`", do="give the fact a name of its own")
    _refuse_patients(dict(facts), "")
    sealed = canonical.encode({"kind": kind, "at": at, **facts})
    if len(sealed) > MOST_ENTRY:
        raise EntryTooLong(
            f"an entry has {len(sealed)} bytes, {MOST_ENTRY} are the most", do="log a hash of the long part"
        )
    return sealed


def open_entry(sealed: bytes, number: int = -1) -> Entry:
    """Read an entry. Raises BadInput where it is not exactly what `seal` writes."""
    value = canonical.decode(sealed)
    if isinstance(value, dict):
        kind, at = value.pop("kind", None), value.pop("at", None)
        if (
            isinstance(kind, str)
            and _KIND.fullmatch(kind)
            and isinstance(at, int | float)
            and not isinstance(at, bool)
            and canonical.encode({"kind": kind, "at": at, **value}) == sealed
        ):
            return Entry(number=number, kind=kind, at=float(at), facts=value, sealed=sealed)
    raise EntryInvalid(
        "an entry is not canonical JSON with a kind and a time", do="look who wrote it, and with what program"
    )


def commitment(salt: bytes, value: bytes) -> str:
    """SHA-256 of a domain, a salt of 32 random bytes and the value, in hex.

    Hides the value as long as the salt is secret or erased; binds, because two openings would be a collision of
    SHA-256.
    """
    if len(salt) != SALT:
        raise BadInput(
            f"a salt has {len(salt)} bytes, {SALT} are needed", do="take a fresh random salt for each commitment"
        )
    return hashlib.sha256(_DOMAIN + salt + value).hexdigest()


def check_commitment(committed: str, salt: bytes, value: bytes) -> None:
    """Check that `committed` was made from salt and value. Raises CommitmentInvalid, BadInput."""
    if not hmac.compare_digest(commitment(salt, value).encode(), committed.encode()):
        raise CommitmentInvalid("the commitment is not to this value", do="use the salt of this very entry")


def _refuse_patients(value: Json, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_patients(name, "")
            _refuse_patients(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_patients(inner, key)
    elif isinstance(value, str) and not _COMMITMENT.fullmatch(value):  # a hash may stand under any name
        if _PATIENT_ID.search(value) or _OF_PATIENT.search(key):
            raise _in_clear(key)
    elif isinstance(value, int | float) and not isinstance(value, bool) and _OF_ONE_PATIENT.search(key):
        raise _in_clear(key)


def _in_clear(key: str) -> PatientInClear:
    return PatientInClear(
        f"the fact `{key or 'name'}` would write a patient into a log that never forgets",
        do="log `commitment(salt, id)` with a fresh salt instead",
    )
