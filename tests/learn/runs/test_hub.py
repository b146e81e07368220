"""The honest hub: it always gets through with fewer than a third lost, and false messages neither stop nor fool it."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId
from paroma.learn.runs import hub, messages, site
from paroma.learn.runs.messages import (
    Answer,
    Ciphertexts,
    FromHub,
    FromSite,
    Ready,
    SignedKeys,
    StaysOut,
    Uploaded,
    Vote,
)
from paroma.learn.secagg.shamir import threshold


def losses(n):
    """Every way to lose fewer than a third: before the upload, before the vote, between vote and answer."""
    return [x for x in itertools.product(range(n), repeat=3) if 3 * sum(x) < n]


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
def test_losses_below_a_third_never_stop_a_question(federation, programme, n):
    for a, b, e in losses(n):
        for k in range(n - threshold(n) - a - b + 1):  # so many may decline besides
            stages = ["open"] * a + ["voting"] * b + ["complete"] * e
            names = [f"site-{i:02}" for i in range(n)]
            p = programme(
                lost=dict(zip(names, stages, strict=False)),
                withdraws=dict.fromkeys(names[len(names) - k :], "voting"),
                seed=a + b,
            )
            f = federation(n, m=2, programme=p)
            f.set_up()
            f.ask()
            assert len(f.results) == 1, (a, b, e, k, f.failed)
            assert len(f.results[0].members) == n - a - b - k
            assert f.results[0].total == f.expected(f.results[0])
            assert len(f.sent_uploads) == n - a  # nothing was uploaded twice: sets shrank


def intercepted(f, kind, change):
    """Run with every message of this kind from the last site changed on its way."""
    deliver, liar = f.deliver, f.names[-1]

    def bent(to):
        if to == "hub" and f.queues[to]:
            sender, data = f.queues[to][0]
            message = msgspec.msgpack.decode(data, type=FromSite)
            if sender == liar and isinstance(message, kind):
                f.queues[to][0] = (sender, msgspec.msgpack.encode(change(message)))
        deliver(to)

    f.deliver = bent
    return liar


def signed_again(f, answer):
    blank = replace(answer, signature=b"")
    return replace(answer, signature=f.keys[answer.site].sign(messages.answer_statement(blank)))


def test_false_shares_are_named_and_the_sum_is_right(federation):
    f = federation(7, m=3)
    liar = intercepted(
        f, Answer, lambda a: signed_again(f, replace(a, shares=tuple(replace(s, share=b"\x00" * 33) for s in a.shares)))
    )
    f.set_up()
    f.ask()
    assert f.results[0].total == f.expected(f.results[0])
    assert all(liar in suspected.sites for suspected in f.suspected)


def test_false_shares_of_pair_seeds_are_worked_around(federation, programme):
    """One lost before the upload, one after the vote: the seed between them is only in what the votes carry."""
    f = federation(7, m=3, programme=programme(lost={"site-00": "open", "site-01": "complete"}))
    intercepted(
        f,
        Answer,
        lambda a: signed_again(f, replace(a, pair_shares=tuple(replace(s, share=b"\x01" * 33) for s in a.pair_shares))),
    )
    f.set_up()
    f.ask()
    assert (
        not f.results
    )  # 5 answers, one of them false, t = 5: too few are true, and the hub does not take a wrong seed
    f = federation(10, m=3, programme=programme(lost={"site-00": "open", "site-01": "complete"}))
    intercepted(
        f,
        Answer,
        lambda a: signed_again(f, replace(a, pair_shares=tuple(replace(s, share=b"\x01" * 33) for s in a.pair_shares))),
    )
    f.set_up()
    f.ask()
    assert f.results[0].total == f.expected(f.results[0])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda u: replace(u, signature=b"no"), id="not signed"),
        pytest.param(lambda u: replace(u, core=replace(u.core, size=1)), id="another size"),
        pytest.param(lambda u: replace(u, boxes=u.boxes[:-1]), id="a box missing"),
        pytest.param(lambda u: replace(u, core=replace(u.core, shares=b"")), id="no commitments"),
        pytest.param(lambda u: replace(u, masked=b"short"), id="truncated bytes"),
    ],
)
def test_a_malformed_upload_is_left_out_and_named(federation, change):
    f = federation(4)
    liar = intercepted(f, Uploaded, change)
    f.set_up()
    f.ask()
    assert [s.sites for s in f.suspected] == [(liar,)]
    assert [m.site for m in f.results[0].members] == f.names[:3]
    assert f.results[0].total == f.expected(f.results[0])


def test_two_ends_that_committed_to_different_seeds_are_found_before_the_proposal(federation):
    f = federation(4)

    def other_seeds(upload):
        bent = replace(upload, core=replace(upload.core, pairs=bytes(len(upload.core.pairs))), signature=b"")
        return replace(bent, signature=f.keys[bent.core.site].sign(messages.upload_statement(bent)))

    liar = intercepted(f, Uploaded, other_seeds)
    f.set_up()
    f.ask()
    assert all(liar in suspected.sites for suspected in f.suspected)
    assert len(f.suspected) == 3
    assert [m.site for m in f.results[0].members] == f.names[:3]


@pytest.mark.parametrize("kind", [SignedKeys, Ciphertexts, Ready])
def test_who_fails_in_the_set_up_is_left_out(federation, kind):
    changes = {
        SignedKeys: lambda k: replace(k, signature=b"no"),
        Ciphertexts: lambda c: replace(c, transcript="other"),
        Ready: lambda r: replace(r, without=("site-00",)),
    }
    f = federation(4)
    liar = intercepted(f, kind, changes[kind])
    f.set_up()
    assert f.able
    left = {p.site for p in f.hub_state().able}
    assert len(left) == 3
    assert kind is Ready or liar not in left
    f.ask()
    assert f.results[0].total == f.expected(f.results[0])


def test_who_speaks_in_anothers_name_is_named(federation):
    f = federation(4)
    f.set_up()
    before = f.hub_disk
    f.at_hub(hub.Received(sender=SiteId("site-00"), message=Ready(run="run-1", site="site-01", transcript="")))
    assert f.hub_disk == before
    assert f.suspected[0].sites == ("site-00",)


def test_a_site_that_is_known_to_be_away_is_not_waited_for(federation):
    f = federation(4)
    f.set_up()
    f.dead.add(SiteId("site-03"))
    f.at_hub(hub.Away(site=SiteId("site-03")))
    at = f.time
    f.ask()
    assert f.time == at
    assert f.results[0].total == f.expected(f.results[0])


def waited_out(f):
    """The set-up's deadline passes, with nothing from anybody."""
    f.time = f.hub_state().deadline
    f.at_hub(hub.Tick())


def sends_keys(f, name):
    f.queues[name].clear()
    state, _ = site.begin(name, f.terms, f.invitation, f.crypto[name])
    f.at_hub(hub.Received(sender=name, message=state.keys))


@pytest.mark.parametrize("late", [1, hub.MOST_TURNS])
def test_a_set_up_waits_on_while_too_few_have_answered(federation, late):
    f = federation(4)
    f.start()
    f.invitation = msgspec.msgpack.decode(f.queues[f.names[0]][0][1], type=FromHub)
    for name in f.names[:2]:
        sends_keys(f, name)
    for _ in range(late):  # nothing was read, debited or disclosed: it costs nothing to wait
        waited_out(f)
        assert f.failed is None
    sends_keys(f, f.names[2])
    waited_out(f)
    assert f.failed is None
    assert f.hub_state().phase == "ciphertexts"


def test_a_set_up_does_not_wait_for_ever(federation):
    f = federation(4)
    f.start()
    for _ in range(hub.MOST_TURNS):
        waited_out(f)
    assert f.failed is None
    waited_out(f)
    assert f.failed == "too few sites took part in setting up the run"


def stays_out(f, name):
    f.queues[name].clear()
    f.at_hub(hub.Received(sender=name, message=StaysOut(run="run-1", site=name)))


def test_a_set_up_does_not_wait_for_a_site_that_stays_out(federation):
    f = federation(4)
    f.start()
    f.invitation = msgspec.msgpack.decode(f.queues[f.names[0]][0][1], type=FromHub)
    stays_out(f, f.names[1])
    stays_out(f, f.names[1])
    for name in (f.names[0], f.names[2], f.names[3]):
        assert f.hub_state().phase == "keys"
        sends_keys(f, name)
    assert f.failed is None
    assert f.hub_state().phase == "ciphertexts"
    stays_out(f, f.names[2])  # whoever has begun sits out, or declines
    assert f.failed is None
    assert f.hub_state().stays_out == (f.names[1],)


def test_a_run_ends_at_once_where_too_few_take_part(federation):
    f = federation(4)
    f.start()
    stays_out(f, f.names[0])
    assert f.failed is None
    stays_out(f, f.names[3])
    assert f.failed == hub.TOO_FEW_SET_UP


def test_after_a_complete_set_was_handed_out_there_is_no_new_attempt(federation, programme):
    """Too many are lost after the vote: the hub asks again, and then gives up rather than repeat what was committed."""
    lost = {"site-00": "complete", "site-01": "complete"}
    f = federation(4, programme=programme(lost=lost), pace=hub.Pace(patience=2))
    f.set_up()
    f.ask()
    assert not f.results
    assert f.failed.startswith("too few sites answer")
    assert len({entry for _, entry in f.sent_uploads}) == 1


def test_one_question_after_the_other(federation):
    f = federation(4, questions=1)
    f.set_up()
    f.ask()
    with pytest.raises(Refused):
        f.ask()


KINDS = [SignedKeys, Ciphertexts, Ready, Uploaded, Vote, Answer]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_message_at_any_time_changes_nothing_for_the_worse(federation_class, data):
    """Every message of a whole run, replayed to the hub at any moment, in any state."""
    Federation, Programme = federation_class
    seed = data.draw(st.integers(0, 1000))
    recorded = []
    f = Federation(4, programme=Programme(seed=seed))
    deliver = f.deliver

    def recording(to):
        if to == "hub":
            recorded.append(f.queues[to][0])
        deliver(to)
        if to == "hub" and recorded and f.rng.random() < 0.5:
            sender, old = f.rng.choice(recorded)
            f.at_hub(hub.Received(sender=sender, message=msgspec.msgpack.decode(old, type=FromSite)))

    f.deliver = recording
    f.set_up()
    f.ask()
    f.ask()
    assert [r.total == f.expected(r) for r in f.results] == [True, True]
    assert not f.suspected


def test_the_state_is_what_was_written(federation):
    f = federation(4)
    f.set_up()
    f.ask()
    assert hub.pack(hub.unpack(f.hub_disk)) == f.hub_disk
    with pytest.raises(Refused):
        hub.unpack(b"\xc1")
