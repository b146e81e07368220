"""`paroma bench pdp`: what a decision costs, at 100 policies and in a federation of 1,000 members.

Requests are those of the product: every action once, facts and all. A fresh decision is one that was never asked before. Beside it,
in the same run: `cedarpy` as its documentation uses it, with the text of the same policies parsed at every decision, and with
1,000 members handed over as entities, where Paroma holds what varies as facts of the request. All times are processor time of this
process, so that other work on the machine counts little; the tail is that of single decisions.

Every decision is compared with plain Cedar's on all policies. Planted defects, each of which has to be seen: a forbid is left out of
the slice, and a cache does not look at the facts.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import cedarpy
import msgspec

from paroma.bench import rows
from paroma.bench.benches import Say
from paroma.bench.rows import Row
from paroma.trust.policy import engine, house, packs, trial
from paroma.trust.policy.decide import Ask, Policies, assemble, decide, decide_afresh, load, schema_text
from paroma.trust.policy.facts import TYPES, context

POLICIES: Final = 100
MEMBERS: Final = 1000
BATCHES: Final = 15
FRESH: Final = 160.0  # us
HEAVIEST: Final = "TakePart"
CACHED: Final = 2.0  # us
TAIL: Final = 2.0  # ms
TIMES, TIMES_ENTITIES = 5.0, 70.0
OWN: Final = """
@id("bench-{n}") @because("feature {n} is kept back") @to_change("leave it out") @change("features = permitted_features")
forbid(principal, action == Action::"TakePart", resource)
when {{ context.features.contains("kept-back-{n}") }};
"""


def measure(say: Say) -> tuple[Row, ...]:
    """All rows. Raises PolicyInvalid."""
    policies = policies_of(POLICIES)
    asked = [trial.good(action) for action in TYPES]
    heavy = trial.good(HEAVIEST)
    say(f"{len(policies.rules)} policies, {len(asked)} actions, {MEMBERS} members")
    each = [(one.action, microseconds(lambda one=one: decide_afresh(policies, one))) for one in asked]  # type: ignore[misc]
    fresh = statistics.median(cost for _, cost in each)
    worst = max(each, key=lambda row: row[1])
    cached = microseconds(lambda: decide(policies, heavy))
    tail = p99([_fresh(heavy, n) for n in range(3000)], policies)
    say("the same, as cedarpy's documentation does it")
    plain = statistics.median(_plain(policies, one, 20) for one in asked)
    entities = _members()
    with_entities = statistics.median(_plain(policies, one, 5, entities) for one in asked[:: len(asked) // 6])
    return (
        rows.bound(
            f"fresh decision, median of {len(asked)} actions, {len(policies.rules)} policies", fresh, "us", "<=", FRESH
        ),
        rows.printed(f"fresh decision of the dearest action, `{worst[0]}`", worst[1], "us"),
        rows.bound("decision on facts that are equal to earlier ones", cached, "us", "<=", CACHED),
        rows.bound(f"fresh `{HEAVIEST}`, 99th percentile", tail, "ms", "<=", TAIL),
        rows.against("fresh decision, beside plain cedarpy", fresh, "us", "text at each decision", plain, times=TIMES),
        rows.against(
            f"the same, with {MEMBERS} members",
            fresh,
            "us",
            "text and entities at each decision",
            with_entities,
            times=TIMES_ENTITIES,
        ),
        *_defects(policies, asked),
    )


def policies_of(many: int) -> Policies:
    """The release's policies, one rule of every sentence of the house, and forbids of a pack until there are `many`."""
    sentences = tuple(map(house.parse, ("private-only", "no-foreign-code", "never-kind kind=genetic")))
    base = len(load(house=sentences).rules)
    text = "".join(OWN.format(n=n) for n in range(max(0, many - base)))
    meta = b'name = "bench"\nversion = "1"\ntitle = "Bench"\nsays = "Forbids that concern nobody."\n'
    tests = b'[[test]]\nsays = "x"\naction = "Pause"\ndecision = "allowed"\npolicy = "pause"\n'
    own = packs.own({"pack.toml": meta, "policies.cedar": text.encode(), "tests.toml": tests})
    return load(house=sentences, own=[own])


def microseconds(work: Callable[[], object]) -> float:
    """Processor time of one call, us: the median of several batches."""
    work()
    began = time.process_time()
    work()
    many = max(3, min(2000, int(0.01 / max(time.process_time() - began, 1e-6))))
    found = []
    for _ in range(BATCHES):
        began = time.process_time()
        for _ in range(many):
            work()
        found.append((time.process_time() - began) / many * 1e6)
    return statistics.median(found)


def p99(asked: Sequence[Ask], policies: Policies) -> float:
    """The 99th percentile of single decisions, ms of processor time."""
    found = []
    for one in asked:
        began = time.process_time_ns()
        decide(policies, one)
        found.append((time.process_time_ns() - began) / 1e6)
    return statistics.quantiles(found, n=100)[98]


def _fresh(asked: Ask, n: int) -> Ask:
    """A request that was never asked before."""
    return msgspec.structs.replace(asked, facts=msgspec.structs.replace(asked.facts, run_seconds=n))


def _request(one: Ask) -> dict[str, object]:
    return {
        "principal": f'{one.principal.kind}::"{one.principal.id}"',
        "action": f'Action::"{one.action}"',
        "resource": f'{one.resource.kind}::"{one.resource.id}"',
        "context": context(one.facts),
    }


def _plain(policies: Policies, one: Ask, repeats: int, entities: list[dict[str, object]] | None = None) -> float:
    """Microseconds of a decision on the text of the policies, and on these entities."""
    request, schema = _request(one), schema_text()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        answer = cedarpy.is_authorized(request, policies.text, entities or [], schema)
        found.append((time.process_time() - began) * 1e6)
        if not answer.allowed:
            raise AssertionError("plain Cedar decides the same")
    return statistics.median(found)


def _members() -> list[dict[str, object]]:
    """1,000 members, each a site with its study: what facts in the request save."""
    pairs = itertools.product(("Site", "Study"), range(MEMBERS))
    return [{"uid": {"type": kind, "id": f"{kind.lower()}-{n}"}, "attrs": {}, "parents": []} for kind, n in pairs]


def _defects(policies: Policies, asked: Sequence[Ask]) -> tuple[Row, ...]:
    """A slice without a forbid, and a cache that does not look at the facts: both have to be seen."""
    lost = tuple(rule for rule in policies.rules if rule.id != "not-paused")
    without = assemble(lost, schema_text())
    use = trial.good(HEAVIEST)
    paused = msgspec.structs.replace(use, facts=msgspec.structs.replace(use.facts, paused=True))
    stale: dict[str, bool] = {}

    def forgetful(one: Ask) -> bool:
        return stale.setdefault(one.action, decide(policies, one).allowed)

    forgetful(use)
    whole = engine.handle(policies.rules)

    def plainly(one: Ask) -> bool:
        return engine.answer(dict(_request(one)), whole, policies.nothing, policies.schema).allowed

    same = all(plainly(one) == decide_afresh(policies, one).allowed for one in (*asked, paused))
    return (
        rows.bound("decisions that differ from plain Cedar's on all policies", float(not same), "", "==", 0),
        rows.caught("a slice without one forbid", decide_afresh(without, paused).allowed != plainly(paused)),
        rows.caught("a cache that does not look at the facts", forgetful(paused) != plainly(paused)),
    )
