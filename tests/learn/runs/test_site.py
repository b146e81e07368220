"""One site, one rule at a time: what it refuses, and what it says again."""

import msgspec
import pytest
from msgspec.structs import replace

from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId
from paroma.learn.runs import hub, messages, site
from paroma.learn.runs.messages import (
    Closed,
    Complete,
    OpenAttempt,
    Proposal,
    SignedKeys,
    Stopped,
    read_entry,
    sha256,
    sum_digest,
)


def never():
    raise AssertionError("consents were not to be asked for")


class Wire:
    """A run driven up to a stage, with the last message of each kind that the hub sent to each site."""

    def __init__(self, Federation, n=4, **more):
        self.f = Federation(n, **more)
        self.last = {}
        deliver = self.f.at_site

        def at_site(name, event):
            self.last[name, type(event).__name__] = (event, self.f.state(name))
            deliver(name, event)

        self.f.at_site = at_site
        self.f.set_up()
        self.f.ask()

    def before(self, name, kind):
        """(event, the state in which it came)."""
        return self.last[name, kind]

    def step(self, name, state, event, clean=lambda: True):
        return site.step(state, event, self.f.crypto[name], clean)


@pytest.fixture(scope="module")
def wire(federation_class):
    return Wire(federation_class[0])


ME = SiteId("site-01")


def rejected(outcome, state):
    after, effects = outcome
    assert after is state
    assert all(isinstance(effect, site.Rejected) for effect in effects)
    assert effects
    return effects[0].why


def shrunk(proposal, *names):
    """The same proposal without these sites."""
    kept = tuple(m for m in proposal.members if m.site not in names)
    return replace(proposal, members=kept)


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "bend",
    [
        pytest.param(lambda p: replace(p, members=p.members[:2]), id="too few"),
        pytest.param(lambda p: replace(p, members=p.members[::-1]), id="not in order"),
        pytest.param(lambda p: replace(p, members=(*p.members, p.members[-1])), id="one twice"),
        pytest.param(
            lambda p: replace(p, members=(*p.members, messages.Member(site=SiteId("zz"), upload="0"))), id="a stranger"
        ),
        pytest.param(lambda p: shrunk(p, "site-01"), id="without the site itself"),
        pytest.param(
            lambda p: replace(p, members=(p.members[0], replace(p.members[1], upload="0"), *p.members[2:])),
            id="another upload",
        ),
        pytest.param(lambda p: replace(p, boxes=p.boxes[:-1]), id="a share missing"),
        pytest.param(
            lambda p: replace(p, boxes=(*p.boxes[:-1], replace(p.boxes[-1], sealed=p.boxes[0].sealed))),
            id="a share of another",
        ),
        pytest.param(lambda p: replace(p, entry="0" * 64), id="another attempt"),
    ],
)
def test_a_proposal_that_breaks_a_rule_is_not_signed_and_no_consent_is_read(wire, bend):
    proposal, state = wire.before(ME, "Proposal")
    rejected(wire.step(ME, state, bend(proposal), never), state)


@pytest.mark.promise(2)
def test_consents_are_asked_once_at_the_decision(wire):
    proposal, state = wire.before(ME, "Proposal")
    asked = []
    after, effects = wire.step(ME, state, proposal, lambda: asked.append(1) or True)
    assert asked == [1]
    assert isinstance(effects[0], site.Counted)
    assert after.attempt.votes == (effects[1].message,)
    again, same = wire.step(ME, after, proposal, never)  # the vote is out: the same bytes, and no further question
    assert again is after
    assert same == (effects[1],)


@pytest.mark.promise(2)
def test_a_withdrawal_is_declined_and_nothing_is_signed_or_answered_after(wire):
    proposal, state = wire.before(ME, "Proposal")
    declined, effects = wire.step(ME, state, proposal, lambda: False)
    assert [type(effect.message).__name__ for effect in effects] == ["Decline"]
    assert not declined.attempt.votes
    assert wire.step(ME, declined, shrunk(proposal, "site-03"), never) == (declined, effects)
    complete, _ = wire.before(ME, "Complete")
    rejected(wire.step(ME, declined, complete, never), declined)


@pytest.mark.promise(2)
def test_who_signed_and_then_declines_a_smaller_set_answers_neither(wire):
    proposal, state = wire.before(ME, "Proposal")
    voted, _ = wire.step(ME, state, proposal)
    declined, effects = wire.step(ME, voted, shrunk(proposal, "site-03"), lambda: False)
    assert type(effects[0].message).__name__ == "Decline"
    complete, _ = wire.before(ME, "Complete")
    rejected(wire.step(ME, declined, complete, never), declined)


@pytest.mark.promise(2)
def test_a_withdrawal_after_the_vote_changes_nothing_by_itself(wire):
    complete, state = wire.before(ME, "Complete")
    assert wire.step(ME, state, site.Withdrawn(), lambda: False) == (state, ())
    _, effects = wire.step(ME, state, complete, never)
    assert type(effects[-1].message).__name__ == "Answer"


@pytest.mark.promise(1)
def test_sets_only_descend(wire):
    proposal, state = wire.before(ME, "Proposal")
    smaller, _ = wire.step(ME, state, shrunk(proposal, "site-03"))
    rejected(wire.step(ME, smaller, proposal, never), smaller)
    rejected(wire.step(ME, smaller, shrunk(proposal, "site-00"), never), smaller)


@pytest.mark.promise(1)
def test_one_signature_missing_or_false_is_no_complete_set(wire):
    complete, state = wire.before(ME, "Complete")
    for at in range(len(complete.signatures)):
        missing = complete.signatures[:at] + complete.signatures[at + 1 :]
        rejected(wire.step(ME, state, replace(complete, signatures=missing)), state)
        other = complete.signatures[(at + 1) % len(complete.signatures)].signature
        false = (*missing, replace(complete.signatures[at], signature=other))
        rejected(wire.step(ME, state, replace(complete, signatures=false)), state)


@pytest.mark.promise(1)
def test_an_answer_holds_no_seed_inside_the_set_and_no_share_of_one_outside(wire):
    complete, state = wire.before(ME, "Complete")
    after, effects = wire.step(ME, state, complete)
    answer = effects[-1].message
    assert {s.site for s in answer.shares} == {m.site for m in complete.members}
    assert not answer.seeds
    assert not answer.pair_shares
    assert wire.step(ME, after, complete, never) == (after, (effects[-1],))


@pytest.mark.promise(1)
def test_after_an_answer_nothing_is_signed_declined_or_repeated(wire):
    complete, state = wire.before(ME, "Complete")
    answered, _ = wire.step(ME, state, complete)
    proposal, _ = wire.before(ME, "Proposal")
    rejected(wire.step(ME, answered, shrunk(proposal, "site-03"), never), answered)
    assert wire.step(ME, answered, site.Withdrawn(), never) == (answered, ())
    opened, _ = wire.before(ME, "OpenAttempt")
    opening = replace(read_entry(opened.entry), attempt=2)
    why = rejected(wire.step(ME, answered, replace(opened, entry=messages.entry_bytes(opening))), answered)
    assert why == "who answered a question never repeats it"


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"t": 2}, id="threshold"),
        pytest.param({"m": 1, "least": 3}, id="owners"),
        pytest.param({"c": 1}, id="colluders"),
        pytest.param({"least": 2}, id="least size"),
        pytest.param({"permit": "cd" * 32}, id="permit"),
        pytest.param({"run": "run-2"}, id="run"),
        pytest.param({"transcript": "00" * 32}, id="set-up"),
        pytest.param({"request": "00" * 32}, id="request"),
        pytest.param({"step": 6}, id="more questions than reserved"),
        pytest.param({"step": 0}, id="step 0"),
        pytest.param({"attempt": 4}, id="more attempts than reserved"),
        pytest.param({"participants": 3}, id="a larger threshold than the participants allow"),
        pytest.param({"owner": "one owner"}, id="another owner"),
        pytest.param({"key": "another key"}, id="another key"),
    ],
)
def test_an_opening_that_the_permit_does_not_say_is_not_entered(wire, change):
    opened, state = wire.before(ME, "OpenAttempt")
    opening = read_entry(opened.entry)
    if "participants" in change:
        change = {"participants": opening.participants[1:3], "t": 2, "least": 3}
    elif "owner" in change or "key" in change:
        change = {"participants": (replace(opening.participants[0], **change), *opening.participants[1:])}
    bent = replace(opened, entry=messages.entry_bytes(replace(opening, **change)))
    rejected(wire.step(ME, state, bent), state)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "entry", [b"", b"{}", b"[]", b"\xff", b'{"kind":"attempt-opened"}', b'{"kind":"attempt-opened", "run":1}']
)
def test_garbage_in_place_of_an_entry_changes_nothing(wire, entry):
    opened, state = wire.before(ME, "OpenAttempt")
    rejected(wire.step(ME, state, replace(opened, entry=entry)), state)
    rejected(wire.step(ME, state, replace(opened, entry=opened.entry + b" ")), state)


@pytest.mark.promise(1)
def test_one_entry_for_an_attempt_and_never_back(wire):
    opened, _ = wire.before(ME, "OpenAttempt")
    _, state = wire.before(ME, "Proposal")
    other = replace(read_entry(opened.entry), at=7.5)
    rejected(wire.step(ME, state, replace(opened, entry=messages.entry_bytes(other))), state)
    later = messages.entry_bytes(replace(read_entry(opened.entry), attempt=2))
    moved, effects = wire.step(ME, state, replace(opened, entry=later))
    assert isinstance(effects[0], site.Compute)
    rejected(wire.step(ME, moved, opened), moved)
    proposal, _ = wire.before(ME, "Proposal")
    rejected(wire.step(ME, moved, proposal, never), moved)
    complete, _ = wire.before(ME, "Complete")
    rejected(wire.step(ME, moved, complete, never), moved)


@pytest.mark.promise(1)
def test_what_is_computed_again_after_a_crash_is_thrown_away(wire):
    computed, state = wire.before(ME, "Computed")
    first, effects = wire.step(ME, state, computed)
    other = replace(computed, masked=sha256(b"other numbers"), inline=b"other numbers")
    assert wire.step(ME, first, other, never) == (first, effects)


@pytest.mark.promise(1)
def test_a_contribution_that_is_not_there_is_never_sent_later(wire):
    computed, state = wire.before(ME, "Computed")
    out, effects = wire.step(ME, state, site.CannotContribute(entry=computed.entry))
    assert type(effects[0].message).__name__ == "SitsOut"
    rejected(wire.step(ME, out, computed, never), out)


@pytest.mark.promise(2)
def test_a_withdrawal_between_read_and_upload_keeps_the_contribution_back(wire):
    computed, state = wire.before(ME, "Computed")
    _, effects = wire.step(ME, state, computed, lambda: False)
    assert type(effects[0].message).__name__ == "SitsOut"


@pytest.mark.promise(1)
@pytest.mark.parametrize("kind", ["Computed", "Proposal", "Complete"])
def test_a_restart_says_the_same_bytes_again(wire, kind):
    event, state = wire.before(ME, kind)
    after, effects = wire.step(ME, state, event)
    stored = site.unpack(site.pack(after))
    assert stored == after
    same, again = wire.step(ME, stored, site.Restarted(anchored=after.revision), never)
    assert same is stored
    sent = [msgspec.msgpack.encode(e.message) for e in effects if isinstance(e, site.Send)]
    assert set(sent) <= {msgspec.msgpack.encode(e.message) for e in again}


@pytest.mark.promise(1)
def test_a_restored_older_state_takes_no_further_part(wire):
    complete, state = wire.before(ME, "Complete")
    old, effects = wire.step(ME, state, site.Restarted(anchored=state.revision + 1))
    assert old.lost
    assert old.secrets is None
    assert isinstance(effects[0], site.Rejected)
    rejected(wire.step(ME, old, complete, never), old)
    proposal, _ = wire.before(ME, "Proposal")
    rejected(wire.step(ME, old, proposal, never), old)
    ended, _ = wire.step(ME, old, Stopped(run=old.run, finished=False, reason="a site was restored"))
    assert ended.over


def test_a_result_that_does_not_fit_its_hash_is_not_learned(wire):
    state = wire.f.state(ME)
    salt = bytes(32)
    digest = sum_digest(salt, b"total")
    closed = Closed(run=state.run, step=9, entry="", members=(), digest=digest, salt=salt, total=b"total")
    rejected(wire.step(ME, state, replace(closed, total=b"other")), state)
    rejected(wire.step(ME, state, replace(closed, salt=bytes([1] * 32))), state)
    after, effects = wire.step(ME, state, closed)
    assert effects == (site.Learned(closed=closed),)
    assert wire.step(ME, after, closed) == (after, ())


@pytest.mark.promise(3)
def test_keys_that_are_not_signed_or_not_this_runs_are_refused(federation):
    f = federation(4)
    f.start()
    while not any(
        isinstance(msgspec.msgpack.decode(d, type=messages.FromHub), messages.AllKeys) for _, d in f.queues[ME]
    ):
        f.deliver(
            next(
                name
                for name, queue in f.queues.items()
                if (queue and name != ME) or (name == ME and queue and ME not in f.disk)
            )
        )
    everybody = next(
        m
        for _, d in f.queues[ME]
        if isinstance(m := msgspec.msgpack.decode(d, type=messages.FromHub), messages.AllKeys)
    )
    state = f.state(ME)

    def ask(keys):
        return site.step(state, replace(everybody, keys=keys), f.crypto[ME], never)

    first, *rest = everybody.keys
    for bent in (
        (replace(first, signature=rest[0].signature), *rest),
        (replace(first, kem=rest[0].kem), *rest),
        (replace(first, run="run-2"), *rest),
        everybody.keys[:2],
        everybody.keys[::-1],
        tuple(k for k in everybody.keys if k.site != ME),
    ):
        rejected(ask(bent), state)
    assert isinstance(ask(everybody.keys)[1][0], site.Send)


def test_an_invitation_that_the_permit_does_not_say_is_refused(federation):
    f = federation(4)
    invitation = messages.RunInvitation(run="run-1", permit=b"", query=b"", participants=f.participants)
    with pytest.raises(Refused):
        site.begin(ME, f.terms, replace(invitation, participants=f.participants[:3]), f.crypto[ME])
    with pytest.raises(Refused):
        site.begin(SiteId("stranger"), f.terms, invitation, f.crypto[ME])
    with pytest.raises(Refused):  # m + c > t: a loss could end an attempt
        site.begin(ME, replace(f.terms, m=3, c=1), invitation, f.crypto[ME])
    one = tuple(replace(p, owner="one owner") for p in f.participants)
    with pytest.raises(Refused):  # one owner's sites count once
        site.begin(ME, replace(f.terms, participants=one), replace(invitation, participants=one), f.crypto[ME])


def test_every_message_travels():
    for kind in (OpenAttempt, Proposal, Complete, SignedKeys):
        assert kind in (*messages.FromHub.__args__, *messages.FromSite.__args__)
    assert hub.Pace() == msgspec.convert(msgspec.to_builtins(hub.Pace()), hub.Pace)
