"""What whoever acts on a decision has to do as well, and what it may cost: typed, and merged by the strictest.

A policy says it in @obliges: parts separated by `;`, each `name = word`, `name <= number` or `name >= number`. Several policies
may decide one request; then the lowest of the `<=` and the highest of the `>=` hold. Two words that exclude each other (one policy
wants `mode = masked`, another `mode = per-site`) are a contradiction, and a contradiction is a refusal.
"""

import re
from dataclasses import dataclass, fields
from typing import Final

from paroma.trust.policy.engine import PolicyInvalid, Rule

MOST: Final = {
    "seconds": "s that one contribution may take",
    "cpu_seconds": "s of processor time of one contribution",
    "memory_mib": "MiB of memory of one contribution",
    "upload_mib": "MiB that one contribution may send",
    "epsilon_thousandths": "thousandths of epsilon of the whole permit",
    "retention_days": "days that the facts of the decision are kept",
}
LEAST: Final = {
    "least_patients": "patients in a figure",
    "least_sites": "sites in a sum",
}
WORDS: Final = {"mode": ("masked", "per-site"), "receipt": ("yes",)}
LISTS: Final = ("log", "say")
_PART = re.compile(r"([a-z_]+) (<=|>=|=) (.+)")


class Contradiction(PolicyInvalid):
    """Two policies oblige to things that exclude each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligations:
    """Everything that a decision obliges to. None: no limit. Units as in `MOST` and `LEAST`.

    log: kinds of acts that have to stand in the log. say: sentences that have to stand there. receipt: the person gets one.
    """

    seconds: int | None = None
    cpu_seconds: int | None = None
    memory_mib: int | None = None
    upload_mib: int | None = None
    epsilon_thousandths: int | None = None
    retention_days: int | None = None
    least_patients: int | None = None
    least_sites: int | None = None
    mode: str | None = None
    receipt: str | None = None
    log: tuple[str, ...] = ()
    say: tuple[str, ...] = ()

    def told(self) -> dict[str, int | str | list[str]]:
        """What is set, as a log entry or a page shows it."""
        found: dict[str, int | str | list[str]] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value not in (None, ()):
                found[one.name] = list(value) if isinstance(value, tuple) else value
        return found


NOTHING: Final = Obligations()


def of(rule: Rule) -> Obligations:
    """What one policy obliges to. Raises PolicyInvalid for an unknown name, a sign or a value that does not fit."""
    found: dict[str, int | str | tuple[str, ...]] = {}
    for part in filter(None, (piece.strip() for piece in rule.notes.get("obliges", "").split(";"))):
        match = _PART.fullmatch(part)
        if match is None:
            raise _unclear(rule, part)
        name, sign, value = match.groups()
        if name in found:
            raise PolicyInvalid(f"policy `{rule.id}` obliges to `{name}` twice", do="say it once")
        if (sign, name in MOST, name in LEAST) in {("<=", True, False), (">=", False, True)} and value.isdecimal():
            found[name] = int(value)
        elif sign == "=" and name in LISTS:
            found[name] = (value,)
        elif sign == "=" and value in WORDS.get(name, ()):
            found[name] = value
        else:
            raise _unclear(rule, part)
    return Obligations(**found)  # type: ignore[arg-type]  # each name has its kind of value


def merge(each: tuple[Obligations, ...]) -> Obligations:
    """The strictest of all. Raises Contradiction."""
    if len(each) == 1:
        return each[0]
    found: dict[str, int | str | tuple[str, ...] | None] = {}
    for name in MOST:
        found[name] = min((v for one in each if (v := getattr(one, name)) is not None), default=None)
    for name in LEAST:
        found[name] = max((v for one in each if (v := getattr(one, name)) is not None), default=None)
    for name in WORDS:
        said = {v for one in each if (v := getattr(one, name)) is not None}
        if len(said) > 1:
            raise Contradiction(
                f"policies ask for `{name}` {' and '.join(f'`{one}`' for one in sorted(said))} at once",
                do="take one of them out: `paroma policy test` names them",
            )
        found[name] = said.pop() if said else None
    for name in LISTS:
        found[name] = tuple(dict.fromkeys(value for one in each for value in getattr(one, name)))
    return Obligations(**found)  # type: ignore[arg-type]  # each name has its kind of value


def _unclear(rule: Rule, part: str) -> PolicyInvalid:
    names = ", ".join((*(f"{n} <= number" for n in MOST), *(f"{n} >= number" for n in LEAST), *WORDS, *LISTS))
    return PolicyInvalid(f"policy `{rule.id}` obliges to `{part}`, which nobody can do", do=f"use {names}")
