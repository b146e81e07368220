"""From what was said to yes or no. Pure; three answers inside, because what is unknown counts against a use.

Meaning of provisions: IHE Privacy Consent on FHIR (ITI PCF): entries of one list are alternatives; an inner rule
narrows or widens the outer one once, and inherits what it does not name; an unknown date, author or label counts
against access. Ours beside it: no purpose named is no yes; two statements that disagree are a no until somebody has
asked the patient.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from paroma.data.consent import purposes
from paroma.data.consent.purposes import Coding
from paroma.data.consent.statement import ANYBODY, Choice, Override, Rule, Statement, Use, Verdict
from paroma.kernel.clock import iso

USING = frozenset({"use", "access"})  # FHIR consentaction codes under which a computation falls


class Match(Enum):
    """Does a rule speak of a request?"""

    NO = 0
    UNKNOWN = 1
    YES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What is known of the data that a request is about; None is unknown."""

    date: float | None = None
    author: str | None = None
    encounter: str | None = None
    resource: str | None = None
    labels: tuple[Coding, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, in the words of a FHIR Consent."""

    purposes: tuple[Coding, ...]  # alternatives of which a yes must cover one; empty: not stated
    at: float  # seconds since 1970
    recipients: tuple[str, ...] = ()  # all references that stand for who receives, groups included; empty: unknown
    data: Data = Data()
    wider: tuple[Coding, ...] = ()  # a no to one of these is a no, too


def evaluate(
    consents: Sequence[Statement],
    choices: Sequence[Choice],
    overrides: Sequence[Override],
    use: Use,
    at: float,
    *,
    judge: Callable[[Statement, Request], bool | None] | None = None,
) -> Verdict:
    """May this patient be used for `use` at `at` (seconds since 1970)? All three lists are this patient's.

    In this order: what the law orders; the patient's own no; a statement that cannot be computed or denies; then what
    the basis asks for. choices: the newest for each scope. Unknown, conflict or error is a no. judge: `decide`, or
    something that remembers its answers for equal rules.
    """
    if not purposes.named(use.purpose):
        return Verdict(False, "unknown purpose")
    for order in overrides:
        if order.purpose == use.purpose and order.study in {"", use.study} and order.starts <= at < order.ends:
            return Verdict(True, f"override: {order.law}")
    # whatever their time says: a clock that was set back must not undo a no
    covering = [c for c in choices if c.scope.covers(purpose=use.purpose, study=use.study)]
    no = next((c for c in covering if c.says == "no"), None)
    if no is not None:
        return Verdict(False, f"opt-out {no.number} of {iso(no.at)[:10]}")
    request = Request(
        purposes=purposes.named(use.purpose), at=at, recipients=use.recipients, wider=purposes.wider(use.purpose)
    )
    answers = [(c, (judge or decide)(c, request)) for c in consents if c.active]
    against = next((c for c, answer in answers if answer is False), None)
    if against is not None:
        return Verdict(False, f"consent {against.id}: {against.unclear or 'denies it'}")
    if use.basis == "no-opt-out":
        return Verdict(True, "no opt-out")
    yes = next((c for c in covering if c.says == "yes" and c.scope.kind != "everything"), None)
    if yes is not None:
        return Verdict(True, f"consent {yes.number} of {iso(yes.at)[:10]}")
    given = next((c for c, answer in answers if answer), None)
    if given is not None:
        return Verdict(
            True, f"consent {given.id}" + (f" of {iso(given.given)[:10]}" if given.given is not None else "")
        )
    return Verdict(False, "no consent")


def decide(statement: Statement, request: Request) -> bool | None:
    """What one statement says of one request: True, False, or None where it says nothing."""
    if not statement.active:
        return None
    root = statement.rule
    if root is None:
        return False  # not computable: a no until somebody has asked
    for rule in root.inner:
        if rule.type == "deny" and match(rule, request) is not Match.NO:
            return False
    allowing = [r for r in (root, *(_within(r, root) for r in root.inner)) if r.type == "permit"]
    if any(match(rule, request) is Match.YES for rule in allowing):
        return True
    if root.type == "deny" and match(root, request) is not Match.NO:
        return False
    return None


def match(rule: Rule, request: Request) -> Match:
    """Whether `rule` (without its exceptions) speaks of `request`. A permit needs YES; a deny holds unless NO."""
    return min(_elements(rule, request), key=lambda m: m.value, default=Match.YES)


def next_change(consents: Iterable[Statement], overrides: Iterable[Override], after: float) -> float | None:
    """The next instant after `after` at which a period starts or ends, so that an answer may change by itself."""
    edges = [
        edge for c in consents if c.active and c.rule for r in (c.rule, *c.rule.inner) for edge in (r.starts, r.ends)
    ]
    edges += [edge for order in overrides for edge in (order.starts, order.ends)]
    return min((edge for edge in edges if edge is not None and edge > after), default=None)


def _within(inner: Rule, outer: Rule) -> Rule:
    """An inner permit with what it does not name taken from the outer rule; the outer period holds always."""
    both = {
        name: getattr(inner, name) or getattr(outer, name)
        for name in ("purposes", "recipients", "other_actors", "labels", "data", "actions", "narrowed")
    }
    dated = inner if (inner.data_starts, inner.data_ends) != (None, None) else outer
    return Rule(
        type=inner.type,
        starts=max((s for s in (inner.starts, outer.starts) if s is not None), default=None),
        ends=min((e for e in (inner.ends, outer.ends) if e is not None), default=None),
        data_starts=dated.data_starts,
        data_ends=dated.data_ends,
        **both,
    )


def _elements(rule: Rule, request: Request) -> Iterable[Match]:
    yield _inside(request.at, rule.starts, rule.ends)
    yield _purpose(rule, request)
    if rule.recipients:
        known = request.recipients and ANYBODY not in rule.recipients
        others = Match.NO if known else Match.UNKNOWN
        yield Match.YES if set(rule.recipients) & set(request.recipients) else others
    if rule.labels:
        labels = request.data.labels
        yield Match.UNKNOWN if labels is None else _truth(bool(set(rule.labels) & set(labels)))
    if (rule.data_starts, rule.data_ends) != (None, None):
        yield (
            Match.UNKNOWN if request.data.date is None else _inside(request.data.date, rule.data_starts, rule.data_ends)
        )
    if rule.data:
        yield max((_about(ref.meaning, ref.reference, request.data) for ref in rule.data), key=lambda m: m.value)
    if rule.actions:
        yield _truth(bool(set(rule.actions) & USING))
    if rule.narrowed or rule.other_actors:
        yield Match.UNKNOWN


def _purpose(rule: Rule, request: Request) -> Match:
    if not rule.purposes:
        return (
            Match.YES if rule.type == "deny" else Match.NO
        )  # no purpose named: every purpose is denied, none is allowed
    if not request.purposes:
        return Match.UNKNOWN
    if any(purposes.covers(named, wanted) for named in rule.purposes for wanted in request.purposes):
        return Match.YES
    if rule.type == "deny":
        if any(purposes.covers(named, wanted) for named in rule.purposes for wanted in request.wider):
            return Match.YES
        if any(purposes.covers(wanted, named) for named in rule.purposes for wanted in request.purposes):
            return Match.UNKNOWN  # a part of what is wanted is denied
        if not all(purposes.known(named) for named in rule.purposes):
            return Match.UNKNOWN  # what is denied under a code that we do not know may be this
    return Match.NO


def _about(meaning: str, reference: str, data: Data) -> Match:
    known = {"instance": data.resource, "related": data.encounter, "authoredby": data.author}.get(meaning)
    return Match.UNKNOWN if known is None else _truth(known == reference)


def _inside(at: float, starts: float | None, ends: float | None) -> Match:
    return _truth((starts is None or starts <= at) and (ends is None or at < ends))


def _truth(holds: bool) -> Match:
    return Match.YES if holds else Match.NO
