"""A run from the invitation to the last sum, under dropouts, withdrawals, duplicates and crashes."""

import pytest
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import SeededRandomness
from paroma.learn.runs import hub, site
from paroma.learn.secagg.agreement import MlKem768
from paroma.trust.keys.signing import HeldKey


class RealKey:
    """ES256, as in production."""

    def __init__(self, name):
        self._key = HeldKey.fresh(SeededRandomness(1, name))
        self.thumbprint = self._key.thumbprint

    def sign(self, data):
        return self._key.sign(data)

    def verify(self, data, signature):
        self._key.public.verify(data, signature)


@pytest.mark.promise(1)
def test_with_real_keys_the_masked_sum_is_the_integer_sum_bit_for_bit(federation):
    f = federation(5, m=3, c=1, kem=MlKem768(), key=RealKey)
    f.set_up()
    for _ in range(2):
        f.ask()
    assert len(f.results) == 2
    assert all(len(answered.members) == 5 and answered.total == f.expected(answered) for answered in f.results)
    assert not f.suspected
    assert not f.rejected


@st.composite
def troubles(draw):
    n = draw(st.integers(3, 9))
    c = draw(st.integers(0, (n - 1) // 3))
    names = [f"site-{i:02}" for i in range(n)]
    most = (n - 1) // 3  # fewer than a third
    lost = draw(
        st.dictionaries(st.sampled_from(names), st.sampled_from(["open", "voting", "voted", "complete"]), max_size=most)
    )
    alive = [name for name in names if name not in lost]
    withdraws = draw(
        st.dictionaries(st.sampled_from(alive), st.sampled_from(["open", "voting", "voted"]), max_size=most)
    )
    return {
        "n": n,
        "c": c,
        "lost": lost,
        "withdraws": withdraws,
        "sits_out": draw(st.sets(st.sampled_from(alive), max_size=1)),
        "duplicates": draw(st.sampled_from([0.0, 0.3])),
        "crashes": draw(st.sampled_from([0.0, 0.3])),
        "seed": draw(st.integers(0, 2**32)),
    }


@pytest.mark.promise(1)
@settings(max_examples=60, deadline=None)
@given(troubles())
def test_whatever_drops_out_declines_repeats_or_crashes_the_sum_is_exact_or_there_is_none(federation_class, trouble):
    Federation, Programme = federation_class
    n, c = trouble.pop("n"), trouble.pop("c")
    lost, withdraws = dict(trouble["lost"]), dict(trouble["withdraws"])
    f = Federation(n, m=1 if c else 2, c=c, attempts=2, programme=Programme(**trouble))
    f.set_up()
    assert f.able
    f.ask()
    for answered in f.results:
        assert answered.total == f.expected(answered)
        members = {m.site for m in answered.members}
        assert not members & set(trouble["sits_out"])
        for name in f.names:
            counted = [r for r in f.receipts[name] if isinstance(r, site.Counted) and r.entry == answered.entry]
            left_out = [r for r in f.receipts[name] if isinstance(r, site.NotCounted) and r.entry == answered.entry]
            assert bool(counted) or name not in members
            assert not (left_out and name in members)
    assert all(len(hashes) == 1 for hashes in f.sent_uploads.values())  # one vector under one set of masks
    gone = set(lost) | set(withdraws) | trouble["sits_out"]
    if 3 * len(gone) < n:
        assert f.results, f.failed
    assert not f.suspected


@pytest.mark.promise(2)
def test_a_withdrawal_before_the_vote_leaves_the_site_out_and_after_it_does_not(federation, programme):
    for stage, counted in (("voting", False), ("voted", True)):
        f = federation(4, programme=programme(withdraws={"site-01": stage}))
        f.set_up()
        f.ask()
        (answered,) = f.results
        assert ("site-01" in {m.site for m in answered.members}) is counted
        assert bool(f.receipts["site-01"][:1] and isinstance(f.receipts["site-01"][0], site.Counted)) is counted
        assert answered.total == f.expected(answered)


def test_after_the_run_the_secrets_are_gone(federation):
    f = federation(4)
    f.set_up()
    f.ask()
    f.at_hub(hub.Finish(finished=True, reason="all is answered"))
    f.run()
    assert all(f.state(name).over and f.state(name).secrets is None for name in f.names)


def test_a_site_that_never_came_is_left_out_of_the_set_up(federation, programme):
    f = federation(5, m=3, programme=programme(lost={"site-02": "never came"}))
    f.set_up()
    f.ask()
    assert [m.site for m in f.results[0].members] == ["site-00", "site-01", "site-03", "site-04"]
    assert f.results[0].total == f.expected(f.results[0])


def test_too_few_sites_end_the_run_with_a_reason(federation, programme):
    f = federation(4, m=3, attempts=2, programme=programme(sits_out={"site-01", "site-02"}))
    f.set_up()
    f.ask()
    assert not f.results
    assert f.failed == hub.NOBODY_LEFT
