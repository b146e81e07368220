"""What programs say of their policies, and what is said to them: plain forms, without the engine, so that the SDK stays light.

Times are unix seconds. A rule is written `sentence parameter=value ...`.
"""

import msgspec


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read strictly."""


class Deciding(_Said, frozen=True, kw_only=True):
    """A policy that decided. text: its Cedar; empty for what is built in."""

    policy: str
    because: str
    to_change: str
    text: str


class ChangeSaid(_Said, frozen=True, kw_only=True):
    """A fact, its value, and the one that helps."""

    fact: str
    now: str
    helps: str


class Explained(_Said, frozen=True, kw_only=True):
    """A decision, explained. changes: the fewest that turn a refusal, tried; empty where it is allowed or no fact helps."""

    action: str
    principal: str
    resource: str
    allowed: bool
    policies: str
    deciding: tuple[Deciding, ...]
    facts: dict[str, str]
    obliges: dict[str, int | str | list[str]]
    changes: tuple[ChangeSaid, ...]


class DecisionSaid(_Said, frozen=True, kw_only=True):
    """A decision that is kept. times: how often it was asked."""

    decision: str
    action: str
    principal: str
    resource: str
    allowed: bool
    policy: str
    times: int
    at: float


class FlipSaid(_Said, frozen=True, kw_only=True):
    """A decision that would be turned. allowed: as it was. policy, because, to_change: of the new policies."""

    decision: str
    action: str
    principal: str
    resource: str
    allowed: bool
    times: int
    at: float
    policy: str
    because: str
    to_change: str


class Replayed(_Said, frozen=True, kw_only=True):
    """What other policies would have decided since a time. decisions: how many were decided again; flips: those that turn."""

    policies: str
    since: float
    decisions: int
    flips: tuple[FlipSaid, ...]


class RuleSaid(_Said, frozen=True, kw_only=True):
    """A house rule in force. rule: to name it by. says: the sentence. policy: the id under which it refuses."""

    rule: str
    says: str
    policy: str


class SentenceSaid(_Said, frozen=True, kw_only=True):
    """A sentence that may be ticked. asks: what each of its parameters asks."""

    name: str
    says: str
    asks: dict[str, str]


class HouseSaid(_Said, frozen=True, kw_only=True):
    """The house rules. version: counts the changes. policies: digest of all that is in force."""

    version: int
    at: float
    by: str
    policies: str
    rules: tuple[RuleSaid, ...]
    sentences: tuple[SentenceSaid, ...]


class PackSaid(_Said, frozen=True, kw_only=True):
    """A pack. state: `release`, `active`, `trial`. at: since when, 0 for the release's."""

    name: str
    version: str
    title: str
    says: str
    state: str
    policies: int
    at: float


class InForce(_Said, frozen=True, kw_only=True):
    """What is in force. trial: digest of what is on trial beside it, empty without."""

    policies: str
    trial: str
    packs: tuple[PackSaid, ...]


class DifferenceSaid(_Said, frozen=True, kw_only=True):
    """A decision that the policies on trial would have turned. allowed: by those in force."""

    decision: str
    action: str
    allowed: bool
    policy: str
    because: str
    times: int
    at: float


class Differences(_Said, frozen=True, kw_only=True):
    """What a trial would have changed so far. since: its beginning. decisions: how many it was asked beside."""

    policies: str
    trial: str
    since: float
    decisions: int
    found: tuple[DifferenceSaid, ...]


class HouseChange(_Said, frozen=True, kw_only=True):
    """House rules to tick and to take out."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class Preview(_Said, frozen=True, kw_only=True):
    """Decide again since a time: with other house rules, and with a pack (its files), neither of which is put in force."""

    since: float
    house: HouseChange = HouseChange()
    files: dict[str, str] | None = None


class Staged(_Said, frozen=True, kw_only=True):
    """A pack's files, to be put on trial."""

    files: dict[str, str]
