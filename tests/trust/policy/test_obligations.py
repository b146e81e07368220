import pytest
from hypothesis import given, strategies as st

from paroma.trust.policy import obligations
from paroma.trust.policy.obligations import LEAST, MOST, NOTHING, Contradiction, Obligations, merge

FIGURES = st.fixed_dictionaries({name: st.none() | st.integers(0, 10**6) for name in (*MOST, *LEAST)})
OBLIGED = st.builds(
    lambda figures, log: Obligations(**figures, log=log), FIGURES, st.sampled_from([(), ("use",), ("run",)])
)


@pytest.mark.promise(3)
@given(st.lists(OBLIGED, min_size=1, max_size=5))
def test_the_strictest_of_all_holds_in_any_order(each):
    merged = merge(tuple(each))
    for one in each:
        for name in MOST:
            limit = getattr(one, name)
            assert limit is None or getattr(merged, name) <= limit
        for name in LEAST:
            limit = getattr(one, name)
            assert limit is None or getattr(merged, name) >= limit
        assert set(one.log) <= set(merged.log)
    backwards = merge(tuple(reversed(each)))
    assert {name: getattr(merged, name) for name in (*MOST, *LEAST)} == {
        name: getattr(backwards, name) for name in (*MOST, *LEAST)
    }
    assert merge((merged, *each)) == merged


def test_words_that_exclude_each_other_are_a_contradiction():
    masked, open_ = Obligations(mode="masked"), Obligations(mode="per-site")
    assert merge((masked, masked, NOTHING)).mode == "masked"
    with pytest.raises(Contradiction, match="`masked` and `per-site`"):
        merge((masked, NOTHING, open_))


def test_only_what_is_set_is_told():
    assert NOTHING.told() == {}
    assert Obligations(seconds=3, log=("use",)).told() == {"seconds": 3, "log": ["use"]}


def test_every_obligation_of_the_release_is_read(policies, strict):
    assert policies.obliged["quality-contribution"].memory_mib == 1024
    assert strict.obliged["house-compute-30-s"] == Obligations(seconds=30, cpu_seconds=30)
    assert obligations.of(policies.named["floor"]) == NOTHING
