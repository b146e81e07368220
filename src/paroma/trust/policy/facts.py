"""The facts on which each action is decided: one frozen type an action, its fields are the context of the Cedar schema.

A fact that is missing, or of another type, never decides: making the facts refuses, and Cedar's schema refuses again.
Facts that vary stand here and not in entities, so that nothing is copied or looked up while deciding. Times are whole
unix seconds: round `now` and `ends` down and `starts` up, then no rounding ever lengthens a term. Floors are facts of
yes or no, never counts: a refusal is the same, byte for byte, for every cohort below the floor.

Words of the values: a member's status, a permit's state and a person's roles are those of their rooms; `log` is
`consistent`, `inconsistent` or `unknown`; `attestation` is `none`, `verified`, `failed` or `unknown`.
"""

from typing import ClassVar

import msgspec

from paroma.kernel.errors import Refused

LEAST, MOST = -(2**63), 2**63 - 1  # Cedar's Long


class FactsInvalid(Refused):
    """A fact is missing or of another type, so nothing is decided: refused."""


class Entity(msgspec.Struct, frozen=True):
    """Who asks, or what is asked for: a Cedar entity. kind: `Hub`, `Site`, `Person`, `Patient`, `Study`, ..."""

    kind: str
    id: str

    def __str__(self) -> str:
        return self.id


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What all facts share: the name of their action, and that every field has exactly its type."""

    ACTION: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self)


class Proven(Facts, frozen=True, kw_only=True):
    """A person or patient at the other end. proven: this request carries a fresh proof of their key or bound
    session.
    """

    proven: bool


class Person(Proven, frozen=True, kw_only=True):
    """A person. enrolled: their key is enrolled and not revoked. roles: scientist, officer, desk, committee,
    operator, ...
    """

    enrolled: bool
    roles: frozenset[str]


class Standing(Facts, frozen=True, kw_only=True):
    """How the two sides stand with each other at this moment, as a site sees it.

    checkpoint_age, grace: s. cosignatures, quorum: of the federation log's newest checkpoint.
    attestation: what the partner proved; attestation_asked: what the permit asks for.
    """

    member: str
    attestation: str
    attestation_asked: str
    log: str
    checkpoint_age: int
    grace: int
    cosignatures: int
    quorum: int
    paused: bool


class UnderPermit(Standing, frozen=True, kw_only=True):
    """A use under a permit. permit_signed: its signatures were verified here. takes_part: this site is a
    participant.
    """

    permit_state: str
    permit_signed: bool
    takes_part: bool
    purpose: str
    now: int
    starts: int
    ends: int


class Consider(Facts, frozen=True, kw_only=True):
    """A site looks at an application before its officer does.

    epsilon_thousandths: 0 when differential privacy is off. kinds: of data that need special care among the features asked for,
    such as `genetic`; `unknown` where this site has no description of the data set. organisation, organisation_kind, country: of
    the applicant, as the permit says; `unknown` where it does not.
    """

    ACTION: ClassVar[str] = "Consider"
    purpose: str
    algorithms: frozenset[str]
    private: bool
    epsilon_thousandths: int
    least_patients: int
    kinds: frozenset[str]
    organisation: str
    organisation_kind: str
    country: str


class SignPermit(Person, frozen=True, kw_only=True):
    """An officer signs a permit for their site."""

    ACTION: ClassVar[str] = "SignPermit"
    purpose: str
    algorithms: frozenset[str]
    private: bool
    epsilon_thousandths: int
    least_patients: int
    kinds: frozenset[str]
    organisation: str
    organisation_kind: str
    country: str
    attestation_asked: str
    takes_part: bool


class TakePart(UnderPermit, frozen=True, kw_only=True):
    """A site computes a contribution.

    floor_reached: at least the permit's floor of patients may be used. budget_enough: for this question.
    walls_missing: walls of the sandbox that could not be built. hour: of the day at the site, 0 to 23. computing: contributions
    that are under way here. run_seconds, run_mib: since the run was entered here, and MiB that it has sent from here.
    """

    ACTION: ClassVar[str] = "TakePart"
    algorithms: frozenset[str]
    private: bool
    epsilon_thousandths: int
    least_patients: int
    kinds: frozenset[str]
    organisation: str
    organisation_kind: str
    country: str
    algorithm: str
    features: frozenset[str]
    permitted_features: frozenset[str]
    floor_reached: bool
    budget_enough: bool
    questions_left: int
    attempts_left: int
    walls_missing: frozenset[str]
    hour: int
    computing: int
    run_seconds: int
    run_mib: int


class Vote(UnderPermit, frozen=True, kw_only=True):
    """A site signs a survivor set. Whether it may, by the rules of the vote, is the run's own question."""

    ACTION: ClassVar[str] = "Vote"


class Answer(UnderPermit, frozen=True, kw_only=True):
    """A site hands out the shares that open a sum."""

    ACTION: ClassVar[str] = "Answer"


class Receive(Facts, frozen=True, kw_only=True):
    """A site takes in what the hub tells: log entries, results, news of members."""

    ACTION: ClassVar[str] = "Receive"
    log: str


class ReadOwnUses(Proven, frozen=True, kw_only=True):
    """A patient reads who used their records."""

    ACTION: ClassVar[str] = "ReadOwnUses"


class Give(Proven, frozen=True, kw_only=True):
    """A patient says yes to the use of their records, from now on."""

    ACTION: ClassVar[str] = "Give"


class Withdraw(Person, frozen=True, kw_only=True):
    """A patient, or the desk on their behalf, withdraws. For a patient: enrolled true, roles empty."""

    ACTION: ClassVar[str] = "Withdraw"


class IssuePatientLink(Person, frozen=True, kw_only=True):
    """The desk prints a single-use link for a patient."""

    ACTION: ClassVar[str] = "IssuePatientLink"


class LoadRecords(Person, frozen=True, kw_only=True):
    """An officer brings records into the vault."""

    ACTION: ClassVar[str] = "LoadRecords"


class ReadSite(Person, frozen=True, kw_only=True):
    """Somebody reads the site's console: runs, walls, log; no patient."""

    ACTION: ClassVar[str] = "ReadSite"


class Pause(Person, frozen=True, kw_only=True):
    """An officer pauses all uses at a site."""

    ACTION: ClassVar[str] = "Pause"


class Resume(Person, frozen=True, kw_only=True):
    """An officer lets uses go on."""

    ACTION: ClassVar[str] = "Resume"
    log: str


class ReadPolicies(Person, frozen=True, kw_only=True):
    """Somebody reads the policies in force, and why something was decided."""

    ACTION: ClassVar[str] = "ReadPolicies"


class ChangePolicies(Person, frozen=True, kw_only=True):
    """Somebody changes the house rules, or puts a pack on trial or in force."""

    ACTION: ClassVar[str] = "ChangePolicies"


class Join(Facts, frozen=True, kw_only=True):
    """A machine joins as a site. invitation: open, used, used-by-this-key, expired, unknown."""

    ACTION: ClassVar[str] = "Join"
    proven: bool
    invitation: str


class Exchange(Facts, frozen=True, kw_only=True):
    """A site talks with the hub. proven: token and DPoP proof were verified."""

    ACTION: ClassVar[str] = "Exchange"
    proven: bool
    member: str
    log: str


class ReadCatalogue(Person, frozen=True, kw_only=True):
    """A person reads the descriptions of data sets."""

    ACTION: ClassVar[str] = "ReadCatalogue"


class Apply(Person, frozen=True, kw_only=True):
    """A scientist submits an application."""

    ACTION: ClassVar[str] = "Apply"
    purpose: str


class ReadApplication(Person, frozen=True, kw_only=True):
    """A person reads an application."""

    ACTION: ClassVar[str] = "ReadApplication"
    is_applicant: bool


class DecideApplication(Person, frozen=True, kw_only=True):
    """The committee asks, approves or refuses."""

    ACTION: ClassVar[str] = "DecideApplication"
    purpose: str
    is_applicant: bool


class OpenRun(Person, frozen=True, kw_only=True):
    """A scientist opens a run under a permit. sites_online, least_sites: participants connected, and needed."""

    ACTION: ClassVar[str] = "OpenRun"
    is_applicant: bool
    permit_state: str
    permit_signed: bool
    purpose: str
    now: int
    starts: int
    ends: int
    questions_left: int
    sites_online: int
    least_sites: int


class ReadRun(Person, frozen=True, kw_only=True):
    """A person reads a run: curve, sites, what was disclosed."""

    ACTION: ClassVar[str] = "ReadRun"
    is_applicant: bool


class StopRun(Person, frozen=True, kw_only=True):
    """A person stops a run."""

    ACTION: ClassVar[str] = "StopRun"
    is_applicant: bool


class RevokePermit(Person, frozen=True, kw_only=True):
    """A permit ends before its time: at the hub for all, at a site for this site."""

    ACTION: ClassVar[str] = "RevokePermit"
    is_applicant: bool


class RevokePerson(Person, frozen=True, kw_only=True):
    """A person, and the key that they hold, is out."""

    ACTION: ClassVar[str] = "RevokePerson"


class Erase(Person, frozen=True, kw_only=True):
    """A patient's records are destroyed, backups included."""

    ACTION: ClassVar[str] = "Erase"


class ReadLog(Person, frozen=True, kw_only=True):
    """A person reads the federation log."""

    ACTION: ClassVar[str] = "ReadLog"


class ReadMembers(Person, frozen=True, kw_only=True):
    """A person reads the list of members."""

    ACTION: ClassVar[str] = "ReadMembers"


class Invite(Person, frozen=True, kw_only=True):
    """An operator mints an invitation, for a site or a person."""

    ACTION: ClassVar[str] = "Invite"


class Quarantine(Person, frozen=True, kw_only=True):
    """An operator isolates a member."""

    ACTION: ClassVar[str] = "Quarantine"


class Release(Person, frozen=True, kw_only=True):
    """An operator lets a member in again."""

    ACTION: ClassVar[str] = "Release"


class Remove(Person, frozen=True, kw_only=True):
    """An operator ends a membership for good."""

    ACTION: ClassVar[str] = "Remove"


TYPES: dict[str, type[Facts]] = {
    kind.ACTION: kind
    for kind in (
        *(Consider, SignPermit, TakePart, Vote, Answer, Receive),
        *(ReadOwnUses, Give, Withdraw, IssuePatientLink, LoadRecords, ReadSite, Pause, Resume, Erase),
        *(ReadPolicies, ChangePolicies),
        *(Join, Exchange, ReadCatalogue, Apply, ReadApplication, DecideApplication, OpenRun, ReadRun, StopRun),
        *(RevokePermit, RevokePerson, ReadLog, ReadMembers, Invite, Quarantine, Release, Remove),
    )
}
_FIELDS: dict[type[Facts], tuple[tuple[str, object], ...]] = {}


def fields(kind: type[Facts]) -> tuple[tuple[str, object], ...]:
    """Name and type (bool, int, str or frozenset[str]) of every fact of `kind`."""
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple((field.name, field.type) for field in msgspec.structs.fields(kind))
    return _FIELDS[kind]


def check(facts: Facts) -> None:
    """Raise FactsInvalid unless every fact has exactly its type: `True` is no number, 1.0 no whole one."""
    for name, kind in fields(type(facts)):
        value = getattr(facts, name)
        if kind == frozenset[str]:
            fits = type(value) is frozenset and all(type(item) is str for item in value)
        else:
            fits = type(value) is kind and (type(value) is not int or LEAST <= value <= MOST)
        if not fits:
            raise FactsInvalid(
                f"fact `{name}` of action `{facts.ACTION}` has the wrong type",
                do=f"gather `{name}` again, as {WANTED[kind]}",
            )


WANTED: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    str: "a text",
    frozenset[str]: "a set of texts",
}


def context(facts: Facts) -> dict[str, object]:
    """The facts as Cedar's context. Raises FactsInvalid."""
    check(facts)
    return {
        name: sorted(value) if isinstance(value := getattr(facts, name), frozenset) else value
        for name, _ in fields(type(facts))
    }
