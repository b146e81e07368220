"""Ids are typed, unguessable and never reused: `kind-` and 80 random bits in Crockford's base 32.

A name that a person chose (`Name`) is another thing: short, lower case, readable, and unique only where it is used.
"""

import re
from typing import NewType

from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import Randomness

SiteId = NewType("SiteId", str)
PersonId = NewType("PersonId", str)
StudyId = NewType("StudyId", str)
ApplicationId = NewType("ApplicationId", str)
PermitId = NewType("PermitId", str)
RunId = NewType("RunId", str)
DataSetId = NewType("DataSetId", str)
PatientId = NewType("PatientId", str)
Name = NewType("Name", str)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"[a-z]{2,12}-[0-9a-hjkmnp-tv-z]{16}")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def fresh(kind: str, randomness: Randomness) -> str:
    """A new id of this kind: `run-0f3k...`, 16 letters of 5 random bits each."""
    number = int.from_bytes(randomness.take(10), "big")
    return f"{kind}-" + "".join(ALPHABET[number >> shift & 31] for shift in range(75, -5, -5))


def parse(kind: str, text: str) -> str:
    """`text` as an id of this kind. Raises BadInput."""
    if not text.startswith(f"{kind}-") or not _ID.fullmatch(text):
        raise BadInput(
            f"`{printable(text)}` is no id of the form `{kind}-...`", do=f"copy the whole id, `{kind}-` included"
        )
    return text


def name(text: str, *, longest: int = 48) -> Name:
    """`text` as a readable name: lower-case letters, digits and single hyphens. Raises BadInput."""
    if len(text) > longest or not _NAME.fullmatch(text):
        raise BadInput(
            f"`{printable(text)}` cannot be a name",
            do=f"use at most {longest} lower-case letters, digits and single hyphens, a letter first",
        )
    return Name(text)


def printable(text: str, *, longest: int = 60) -> str:
    """What may be shown of foreign text: no control characters, no more than `longest` characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:longest])
    return shown if len(text) <= longest else shown + "..."
