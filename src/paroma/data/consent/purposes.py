"""Purposes of a use, and how a consent names them.

A permit names a purpose by the code of `trust/policy/purposes` (EHDS Art. 53). A FHIR Consent names codings, mostly of
HL7's v3-ActReason. `named` says which codings stand for a purpose; `covers` follows the hierarchy of v3-ActReason
downwards only: who allowed all research allowed clinical trials, and who allowed clinical trials did not allow all
research. Where HL7 has no code as narrow as ours, only our own code counts as a yes.
"""

from typing import Final

import msgspec

from paroma.trust.policy.purposes import ALLOWED

OWN: Final = "urn:paroma:purpose"
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"


class Coding(msgspec.Struct, frozen=True, array_like=True):
    """A code of a code system."""

    system: str
    code: str


_NAMED: Final[dict[str, tuple[str, ...]]] = {
    "public-health": ("PUBHLTH",),
    "scientific-research": ("HRESCH",),
    "care-improvement": ("HQUALIMP",),
}
# A no to the wider purpose is a no to these, too: they are cut out of it in Art. 53(1)(e).
_PART_OF: Final[dict[str, str]] = {
    "product-development": "scientific-research",
    "algorithm-training": "scientific-research",
}
# HL7 Terminology, v3-ActReason below PurposeOfUse, as far as secondary use and operations go. Emergency treatment and
# breaking the glass are left out of TREAT on purpose: they are declared, never implied.
_PARENT: Final[dict[str, str]] = {
    **dict.fromkeys(("BIORCH", "CLINTRCH", "PRECLINTRCH", "DSRCH", "POARCH", "TRANSRCH"), "HRESCH"),
    **dict.fromkeys(("CLINTRCHNPC", "CLINTRCHPC"), "CLINTRCH"),
    **dict.fromkeys(("DISASTER", "THREAT"), "PUBHLTH"),
    **dict.fromkeys(("HQUALIMP", "HOUTCOMS", "PERFMSR", "PATSFTY", "HCOMPL", "TRAIN", "RECORDMGT"), "HOPERAT"),
    **dict.fromkeys(("CLINTRL", "COC", "CAREMGT"), "TREAT"),
}


_KNOWN: Final = frozenset(
    {
        *_PARENT,
        *_PARENT.values(),
        "TREAT",
        "ETREAT",
        "ERTREAT",
        "BTG",
        "HPAYMT",
        "HMARKT",
        "PATRQT",
        "FAMRQT",
        "PWATRNY",
    }
)


def known(rule: Coding) -> bool:
    """Whether we know what a rule that names this coding is about, and so what it is not about."""
    return (rule.system == ACT_REASON and rule.code in _KNOWN) or (rule.system == OWN and rule.code in ALLOWED)


def named(purpose: str) -> tuple[Coding, ...]:
    """The codings that stand for `purpose`, any of which a yes may name; empty where the purpose is unknown or
    forbidden.
    """
    if purpose not in ALLOWED:
        return ()
    return (Coding(OWN, purpose), *(Coding(ACT_REASON, code) for code in _NAMED.get(purpose, ())))


def wider(purpose: str) -> tuple[Coding, ...]:
    """The codings of what `purpose` is a part of: a no to one of them is a no to `purpose`."""
    return named(_PART_OF[purpose]) if purpose in _PART_OF else ()


def covers(rule: Coding, wanted: Coding) -> bool:
    """Whether a rule that names `rule` speaks of `wanted`: the same code, or one below it."""
    if rule.system != wanted.system:
        return False
    code: str | None = wanted.code
    while code is not None:
        if code == rule.code:
            return True
        code = _PARENT.get(code) if rule.system == ACT_REASON else None
    return False
