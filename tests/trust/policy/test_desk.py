"""What was decided is kept, explained and replayed; a pack goes on trial before it is in force; a rule holds from the next decision on."""

import asyncio

import msgspec
import pytest

from paroma.kernel.errors import BadInput
from paroma.trust.policy import asks, desk as desks, house as houses, kept, trial
from paroma.trust.policy.decide import decide_afresh, load
from paroma.trust.policy.desk import PackOnTrial, TestsFail, open_desk
from paroma.trust.policy.explain import explain
from paroma.trust.policy.facts import TYPES, Entity, fields
from paroma.trust.policy.house import RuleInvalid
from paroma.trust.policy.kept import DecisionUnknown, without_patient
from paroma.trust.policy.tables import METADATA

DAY = 86400.0
NIGHT = '@id("ours-night") @because("it is night") @to_change("wait") @change("hour = 12")\nforbid(principal, action == Action::"TakePart", resource) when { context.hour >= 22 };'
NIGHT_TESTS = '[[test]]\nsays = "no night"\naction = "TakePart"\nfacts = { hour = 23 }\ndecision = "refused"\npolicy = "ours-night"\n'


class Clock:
    def __init__(self):
        self.time = 1_800_000_000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def desk(store, clock):
    METADATA.create_all(store.engine)
    return open_desk(store, clock)


def corpus(ask):
    """A morning's requests: every action as it is allowed, and uses at all hours under many circumstances."""
    asked = [ask(action) for action in TYPES]
    for hour in range(24):
        asked.append(ask("TakePart", hour=hour, now=100 + hour))
        asked.append(ask("TakePart", hour=hour, kinds=frozenset({"genetic"}), algorithm="statistics"))
    asked += [ask("TakePart", paused=True), ask("Vote", now=10**6), ask("Consider", organisation_kind="company")]
    return asked


async def played(desk, store, requests):
    for asked in requests:
        desk.decide(asked)
    await desk.keep(store)


@pytest.mark.promise(3)
def test_a_replay_says_exactly_what_a_live_rerun_says(desk, store, clock, ask):
    """Decide, replay under other rules, put those rules in force, ask everything again: the same decisions flip."""
    requests = corpus(ask)
    asyncio.run(played(desk, store, requests))
    rules = tuple(
        map(
            houses.parse,
            ("not-between-hours from=20 to=8", "never-kind kind=genetic", "only-organisations kinds=university"),
        )
    )
    before = {kept.name_of(asked, desk.policies.digest): desk.decide(asked).allowed for asked in requests}
    foreseen = store.read_now(lambda tx: kept.replay(tx, load(house=rules), clock.now() - DAY))
    store.write_now(lambda tx: desks.set_house(tx, rules, by="person-1", now=clock.now()))
    old = desk.policies.digest
    store.read_now(desk.refresh)
    assert desk.policies.digest != old
    flipped = {
        kept.name_of(asked, old) for asked in requests if desk.decide(asked).allowed != before[kept.name_of(asked, old)]
    }
    assert {one.kept.decision for one in foreseen} == flipped
    assert len(flipped) > 20
    assert all(one.kept.allowed for one in foreseen)  # house rules only make it stricter
    assert store.read_now(lambda tx: kept.replay(tx, load(), clock.now() - DAY)) == ()  # and under the same, none


def test_a_replay_reads_only_what_is_since(desk, store, clock, ask):
    asyncio.run(played(desk, store, [ask("TakePart", hour=23)]))
    clock.time += 3600
    asyncio.run(played(desk, store, [ask("TakePart", hour=22)]))
    night = load(house=[houses.parse("not-between-hours from=22 to=6")])
    assert len(store.read_now(lambda tx: kept.replay(tx, night, clock.now() - 7200))) == 2
    (flip,) = store.read_now(lambda tx: kept.replay(tx, night, clock.now() - 60))
    assert flip.kept.ask == ask("TakePart", hour=22)
    assert flip.reason.policy == "house-not-22-to-6"


def test_more_than_one_batch_is_replayed(desk, store, clock, ask):
    requests = [ask("TakePart", hour=23, now=100 + n % 100, run_seconds=n) for n in range(kept.BATCH + 5)]
    asyncio.run(played(desk, store, requests))
    night = load(house=[houses.parse("not-between-hours from=22 to=6")])
    assert len(store.read_now(lambda tx: kept.replay(tx, night, 0.0))) == len(requests)


@pytest.mark.promise(3)
def test_every_refusal_that_is_kept_is_explained_and_its_change_turns_it(desk, store, ask, strict):
    refused = 0
    for asked in corpus(ask):
        said = explain(strict, asked)
        decision = decide_afresh(strict, asked)
        assert said.allowed is decision.allowed
        assert said.facts.keys() == {name for name, _ in fields(type(asked.facts))}
        if decision.allowed:
            assert not said.changes
            continue
        refused += 1
        assert said.changes, (asked, decision.reasons)
        assert said.deciding[0].text.startswith(f'@id("{said.deciding[0].policy}")')
        turned = {one.fact: one.helps for one in said.changes}
        assert decide_afresh(strict, _with(asked, turned)).allowed
    assert refused > 30


def _with(asked, changed):
    kinds = dict(fields(type(asked.facts)))
    read = {
        bool: lambda v: v == "true",
        int: int,
        str: str,
        frozenset[str]: lambda v: frozenset(filter(None, v.split(", "))),
    }
    new = {name: read[kinds[name]](value) for name, value in changed.items()}
    return msgspec.structs.replace(asked, facts=msgspec.structs.replace(asked.facts, **new))


def test_a_decision_is_found_by_the_beginning_of_its_id(desk, store, ask):
    asyncio.run(played(desk, store, [ask("TakePart"), ask("TakePart"), ask("Vote")]))
    name = kept.name_of(ask("TakePart"), desk.policies.digest)
    found = store.read_now(lambda tx: kept.find(tx, name[:12]))
    assert (found.decision, found.ask, found.times, found.allowed) == (name, ask("TakePart"), 2, True)
    for wrong in ("", "abc", "f" * 64, name[:12] + "'", "../../etc", "%"):
        with pytest.raises(DecisionUnknown) as caught:
            store.read_now(lambda tx, wrong=wrong: kept.find(tx, wrong))
        assert caught.value.do


@pytest.mark.promise(4)
def test_what_is_kept_holds_no_patient_and_is_decided_the_same(desk, store, ask, policies):
    patients = (Entity("Patient", "patient-0123456789abcdef"), Entity("Patient", "patient-fedcba9876543210"))
    requests = []
    for action in ("ReadOwnUses", "Withdraw"):
        for who in (*patients, Entity("Person", "desk-1")):
            for whose in patients:
                requests.append(msgspec.structs.replace(ask(action), principal=who, resource=whose))
    requests.append(msgspec.structs.replace(ask("IssuePatientLink"), resource=patients[0]))
    asyncio.run(played(desk, store, requests))
    for one in store.read_now(lambda tx: kept.recent(tx, 100)):
        assert b"0123456789abcdef" not in asks.written(one.ask)
        assert b"fedcba9876543210" not in asks.written(one.ask)
    for asked in requests:
        assert decide_afresh(policies, without_patient(asked)).allowed is decide_afresh(policies, asked).allowed


@pytest.mark.promise(4)
def test_facts_are_forgotten_when_their_retention_ends(desk, store, clock, ask):
    asyncio.run(played(desk, store, [ask("TakePart")]))
    clock.time += 89 * DAY
    asyncio.run(desk.keep(store))
    assert store.read_now(lambda tx: kept.count(tx, 0.0)) == 1
    clock.time += 2 * DAY
    asyncio.run(desk.keep(store))
    assert store.read_now(lambda tx: kept.count(tx, 0.0)) == 0


def test_a_policy_may_shorten_the_retention(desk, store, clock, ask, own):
    text = '@id("ours-short") @because("short") @limit @obliges("retention_days <= 2")\npermit(principal is Hub, action == Action::"TakePart", resource is Study);'
    pack, _ = own(text)
    desk.policies = load(own=[pack])
    asyncio.run(played(desk, store, [ask("TakePart"), ask("Vote")]))
    clock.time += 3 * DAY
    asyncio.run(desk.keep(store))
    assert [one.ask.action for one in store.read_now(lambda tx: kept.recent(tx, 9))] == ["Vote"]


@pytest.mark.promise(3)
def test_a_pack_on_trial_decides_nothing_and_its_differences_are_kept(desk, store, clock, ask, own):
    _, files = own(NIGHT, NIGHT_TESTS)
    staged = store.write_now(lambda tx: desks.stage(tx, files, by="person-1", now=clock.now()))
    assert staged.state == "trial"
    store.read_now(desk.refresh)
    asyncio.run(played(desk, store, corpus(ask)))
    assert desk.decide(ask("TakePart", hour=23)).allowed  # it is on trial
    found = store.read_now(lambda tx: kept.differences(tx, desk.trial.digest))
    live = {
        kept.name_of(asked, desk.policies.digest)
        for asked in corpus(ask)
        if decide_afresh(desk.trial, asked).allowed != decide_afresh(desk.policies, asked).allowed
    }
    assert {one.decision for one in found} == live
    assert len(live) > 3
    assert {one.policy for one in found} == {"ours-night"}
    trial_digest = desk.trial.digest
    store.write_now(lambda tx: desks.activate(tx, "ours", by="person-1", now=clock.now()))
    store.read_now(desk.refresh)
    assert desk.policies.digest == trial_digest
    assert desk.trial is None
    assert not desk.decide(ask("TakePart", hour=23)).allowed
    store.write_now(lambda tx: desks.retire(tx, "ours", by="person-1", now=clock.now()))
    store.read_now(desk.refresh)
    assert desk.decide(ask("TakePart", hour=23)).allowed


def test_a_new_version_replaces_the_old_one_only_once_it_is_activated(desk, store, clock, ask, own):
    def change(name, *given):
        store.write_now(lambda tx: getattr(desks, name)(tx, *given, by="person-1", now=clock.now()))
        store.read_now(desk.refresh)

    change("stage", own(NIGHT, NIGHT_TESTS)[1])
    change("activate", "ours")
    change("stage", own(NIGHT.replace("22", "20"), NIGHT_TESTS, version="2")[1])
    assert desk.decide(ask("TakePart", hour=21)).allowed
    assert not desk.decide(ask("TakePart", hour=22)).allowed
    change("activate", "ours")
    assert not desk.decide(ask("TakePart", hour=21)).allowed
    (row,) = store.read_now(lambda tx: desks.in_state(tx, "active"))
    assert row.pack.meta.version == "2"


@pytest.mark.promise(3)
def test_a_pack_whose_tests_fail_never_gets_on_trial(desk, store, clock, own):
    _, files = own(NIGHT, NIGHT_TESTS.replace("hour = 23", "hour = 21"))
    with pytest.raises(TestsFail, match="no night") as caught:
        store.write_now(lambda tx: desks.stage(tx, files, by="person-1", now=clock.now()))
    assert caught.value.do
    _, twice = own(NIGHT.replace("ours-night", "floor"), NIGHT_TESTS)
    with pytest.raises(TestsFail, match="two policies"):
        store.write_now(lambda tx: desks.stage(tx, twice, by="person-1", now=clock.now()))
    assert store.read_now(lambda tx: desks.in_state(tx, "trial")) == ()
    for act in (desks.activate, desks.retire):
        with pytest.raises(PackOnTrial):
            store.write_now(lambda tx, act=act: act(tx, "ours", by="person-1", now=clock.now()))


@pytest.mark.promise(3)
def test_house_rules_have_versions_and_hold_from_the_next_decision_on(desk, store, clock, ask):
    rule = houses.parse("never-kind kind=genetic")
    genome = ask("Consider", kinds=frozenset({"genetic"}))
    assert desk.decide(genome).allowed
    after = store.read_now(lambda tx: desks.changed(tx, add=(rule,), remove=()))
    made = store.write_now(lambda tx: desks.set_house(tx, after, by="person-1", now=clock.now()))
    store.read_now(desk.refresh)
    assert (made.version, made.by, made.rules) == (1, "person-1", (rule,))
    assert desk.decide(genome).reasons[0].policy == "house-never-genetic"
    again = store.write_now(lambda tx: desks.set_house(tx, after, by="person-2", now=clock.now()))
    assert (again.version, again.by) == (1, "person-1")  # nothing changed
    with pytest.raises(RuleInvalid, match="not ticked"):
        store.read_now(lambda tx: desks.changed(tx, add=(), remove=(houses.parse("private-only"),)))
    none = store.read_now(lambda tx: desks.changed(tx, add=(), remove=(rule,)))
    assert store.write_now(lambda tx: desks.set_house(tx, none, by="person-1", now=clock.now())).version == 2
    store.read_now(desk.refresh)
    assert desk.decide(genome).allowed


@pytest.mark.promise(3)
def test_a_restarted_program_decides_under_what_its_database_says(desk, store, clock, ask):
    rules = (houses.parse("private-only"),)
    store.write_now(lambda tx: desks.set_house(tx, rules, by="person-1", now=clock.now()))
    again = open_desk(store, clock)
    assert again.policies.digest == load(house=rules).digest
    assert not again.decide(ask("Consider", private=False)).allowed


def test_what_could_not_be_written_is_written_the_next_time(desk, store, ask):
    desk.decide(ask("TakePart"))

    class Broken:
        async def write(self, work):
            raise OSError

    with pytest.raises(OSError):
        asyncio.run(desk.keep(Broken()))
    asyncio.run(desk.keep(store))
    assert store.read_now(lambda tx: kept.count(tx, 0.0)) == 1


def test_a_request_is_read_as_it_is_written(ask):
    for action in TYPES:
        assert asks.read(asks.written(ask(action))) == ask(action)
    whole = msgspec.json.decode(asks.written(ask("TakePart")))
    facts = whole["facts"]
    for bad in (
        whole | {"action": "Nothing"},
        whole | {"facts": {k: v for k, v in facts.items() if k != "now"}},
        whole | {"facts": facts | {"more": 1}},
        whole | {"facts": facts | {"now": "soon"}},
        whole | {"facts": facts | {"now": True}},
        whole | {"facts": facts | {"features": [1]}},
        whole | {"principal": "Hub"},
        whole | {"by": "me"},
        [],
    ):
        with pytest.raises(BadInput):
            asks.read(msgspec.json.encode(bad))
    assert trial.good("TakePart") == ask("TakePart")
