"""Every interleaving of one question against a hub that lies, on the real site machine; and bugs that it must find.

Properties. P1: at most one sum opens, over m honest owners at least. P2: no contribution opens alone, no two vectors go under one mask.
P3: no contribution whose patient withdrew before the site's first vote is in a sum. P4: never two attempts at one question open with
different sets. Receipt: who is in a sum holds one, and `not counted` is never untrue.
"""

import pytest
from msgspec.structs import replace

from paroma.learn.runs import site
from paroma.learn.runs.messages import Complete, OpenAttempt, Proposal, Signed, sha256, vote_statement


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("n", "c", "m", "more"),
    [
        pytest.param(3, 0, 2, {"withdrawals": 2}, id="3 sites"),
        pytest.param(3, 0, 3, {"withdrawals": 2, "forged": True}, id="3 sites, a two-faced hub"),
        pytest.param(3, 0, 2, {"attempts": 2}, id="3 sites, 2 attempts"),
        pytest.param(4, 0, 3, {"withdrawals": 2}, id="4 sites, 2 withdrawals"),
        pytest.param(4, 1, 2, {"withdrawals": 2}, id="4 sites, 1 colluder, 2 withdrawals"),
        pytest.param(4, 1, 2, {"forged": True}, id="4 sites, 1 colluder, a two-faced hub"),
    ],
)
def test_no_order_of_messages_withdrawals_and_crashes_breaks_a_property(explore, n, c, m, more):
    found = explore(n, c, m, **more)
    assert found.why is None, found.trace
    assert found.exhausted
    assert found.sums > 0


def dies_between_writing_and_sending(Honest):
    class Dies(Honest):
        """As it should be, with the crash made visible: the new state is on disk, and nothing of it has left."""

        def outcomes(self, at, event):
            (after,) = super().outcomes(at, event)
            sent = {f for f in after.facts - at.facts if f[0] in {"vote", "answer", "decline"}}
            return [after, after._replace(facts=after.facts - sent)]

    return Dies


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(("n", "c", "m"), [(3, 0, 3), (4, 1, 2)])
def test_a_crash_between_writing_and_sending_breaks_nothing(explore, n, c, m):
    found = explore(n, c, m, driver=dies_between_writing_and_sending(explore.Honest))
    assert found.why is None, found.trace
    assert found.exhausted
    assert found.sums > 0


@pytest.mark.soak
@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("n", "c", "m", "more"),
    [
        pytest.param(4, 0, 2, {"forged": True}, id="4 sites, a two-faced hub"),
        pytest.param(3, 0, 2, {"attempts": 3, "withdrawals": 2}, id="3 sites, 3 attempts"),
        pytest.param(4, 1, 2, {"attempts": 2, "withdrawals": 0}, id="4 sites, 1 colluder, 2 attempts"),
        pytest.param(4, 1, 2, {"attempts": 2}, id="4 sites, 1 colluder, 2 attempts, a withdrawal"),
        pytest.param(5, 1, 2, {}, id="5 sites, 1 colluder"),
        pytest.param(5, 1, 3, {"withdrawals": 2}, id="5 sites, 1 colluder, 3 owners"),
    ],
)
def test_larger_federations_hold_too(explore, n, c, m, more):
    found = explore(n, c, m, seconds=3600, **more)
    assert found.why is None, found.trace
    assert found.exhausted
    assert found.sums > 0


# --- planted bugs: drivers and sites that break one rule each --------------------------------------------------------


def cached_consent_bit(Honest):
    class Cached(Honest):
        """Reads the consents first, and votes later by what it read."""

        def extra(self, at):
            if at.spare is None and self.clean(at):
                yield "read the consents", at._replace(spare="all consent")

        def outcomes(self, at, event):
            if isinstance(event, Proposal | site.Withdrawn) and at.spare:
                after, effects = site.step(at.state, event, self.model.crypto[at.state.me], lambda: True)
                return [self.model.out(at, after, effects)]
            return super().outcomes(at, event)

    return Cached


def only_withholds_its_own_shares(Honest):
    class Withholds(Honest):
        """Takes t signatures for all of them; where a patient has withdrawn, it merely keeps its own answer back."""

        def outcomes(self, at, event):
            if isinstance(event, Complete):
                if not self.clean(at) and at.state.me in {m.site for m in event.members}:
                    return [at]
                if len(event.signatures) >= self.model.t:
                    core = vote_statement(event.entry, event.members)
                    all_of_them = tuple(
                        Signed(site=m.site, signature=self.model.crypto[m.site].sign(core)) for m in event.members
                    )
                    event = replace(event, signatures=all_of_them)
            return super().outcomes(at, event)

    return Withholds


def recomputes_on_retry(Honest):
    class Recomputes(Honest):
        """Has forgotten the bytes when it starts again, and makes them anew."""

        def outcomes(self, at, event):
            if isinstance(event, site.Restarted) and not at.state.attempt.votes:
                forgot = replace(at.state, attempt=replace(at.state.attempt, upload=None, declined=None))
                return super().outcomes(at._replace(state=forgot), event)
            return super().outcomes(at, event)

    return Recomputes


def signs_after_an_answer(Honest):
    class Signs(Honest):
        """Looks at its votes only, not at whether it answered."""

        def outcomes(self, at, event):
            answer = at.state.answer
            if isinstance(event, Proposal) and answer is not None:
                (after,) = super().outcomes(at._replace(state=replace(at.state, answer=None)), event)
                return [after._replace(state=replace(after.state, answer=answer))]
            return super().outcomes(at, event)

    return Signs


def answers_an_older_set(Honest):
    class Older(Honest):
        """Answers any set that it ever signed."""

        def outcomes(self, at, event):
            if isinstance(event, Complete):
                votes = at.state.attempt.votes
                older = next((k for k, v in enumerate(votes) if v.members == event.members), None)
                if older is not None and older + 1 < len(votes):
                    as_then = replace(at.state, attempt=replace(at.state.attempt, votes=votes[: older + 1]))
                    (after,) = super().outcomes(at._replace(state=as_then), event)
                    attempt = replace(after.state.attempt, votes=votes)
                    return [after._replace(state=replace(after.state, attempt=attempt))]
            return super().outcomes(at, event)

    return Older


def sends_before_writing(Honest):
    class Hasty(Honest):
        """May be killed between sending and writing."""

        def outcomes(self, at, event):
            (after,) = super().outcomes(at, event)
            return [after, after._replace(state=at.state)]

    return Hasty


def restores_an_older_disk(Honest):
    class Restored(Honest):
        """Keeps a backup, and goes on from it without looking at the anchor."""

        anchored = staticmethod(lambda _at: 0)

        def extra(self, at):
            if at.spare is None:
                yield "back up", at._replace(spare=at.state)
            elif at.spare != at.state:
                event = site.Restarted(anchored=self.anchored(at))
                after, effects = site.step(at.spare, event, self.model.crypto[at.state.me], lambda: self.clean(at))
                yield "restore", self.model.out(at, after, effects)

        def spare_key(self, spare, tab):
            if spare is None:
                return None
            now = spare.attempt
            votes = tuple(tab[self.model._mask(now.opening.attempt - 1, v.members)] for v in now.votes)
            return votes, spare.answer is not None, now.declined is not None, spare.lost

    return Restored


def goes_back_after_answering(Honest):
    class Repeats(Honest):
        """Enters another attempt at a question that it has answered."""

        def outcomes(self, at, event):
            another = isinstance(event, OpenAttempt) and sha256(event.entry) != at.state.attempt.entry
            if another and at.state.answer is not None:
                return super().outcomes(at._replace(state=replace(at.state, answer=None)), event)
            return super().outcomes(at, event)

    return Repeats


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("plant", "breaks", "more"),
    [
        pytest.param(cached_consent_bit, "P3", {}, id="a cached consent bit"),
        pytest.param(only_withholds_its_own_shares, "P3", {}, id="a site that only withholds its own shares"),
        pytest.param(recomputes_on_retry, "P2", {}, id="recomputing on a retry"),
        pytest.param(signs_after_an_answer, "P2", {}, id="signing after an answer"),
        pytest.param(answers_an_older_set, "P2", {}, id="answering an older set"),
        pytest.param(sends_before_writing, "P", {"deep": True}, id="sending before writing"),
        pytest.param(restores_an_older_disk, "P", {"deep": True}, id="a restored older disk"),
    ],
)
def test_a_planted_bug_is_found(explore, plant, breaks, more):
    found = explore(4, 1, 2, driver=plant(explore.Honest), receipts=False, **more)
    assert found.why is not None, found
    assert found.why.startswith(breaks), found


@pytest.mark.soak
@pytest.mark.promise(2)
def test_repeating_an_answered_question_is_found(explore):
    plant = goes_back_after_answering(explore.Honest)
    found = explore(4, 1, 2, attempts=2, withdrawals=0, receipts=False, driver=plant, seconds=3600)
    assert found.why is not None
    assert found.why.startswith("P4"), found


@pytest.mark.promise(2)
def test_a_restored_disk_that_is_held_to_its_anchor_breaks_nothing(explore):
    class Anchored(restores_an_older_disk(explore.Honest)):
        anchored = staticmethod(lambda at: at.state.revision)

    found = explore(4, 1, 2, withdrawals=0, driver=Anchored)
    assert found.why is None, found.trace
    assert found.exhausted
    assert found.sums > 0
