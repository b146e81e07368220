import pytest
from hypothesis import given, strategies as st

from paroma.sdk.formula import Formula, FormulaUnclear, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num ~ age", Formula("num", ("age",))),
        (" num~age +sex+ cp ", Formula("num", ("age", "sex", "cp"))),
        ("num > 2 ~ age", Formula("num", ("age",), 2.0)),
        ("num > -0.5 ~ age + a.b_1", Formula("num", ("age", "a.b_1"), -0.5)),
    ],
)
def test_a_formula_names_an_outcome_and_features(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("num", "one `~`"),
        ("num ~ age ~ sex", "one `~`"),
        ("~ age", "no outcome"),
        ("num ~", "a name is missing"),
        ("num ~ age +", "a name is missing"),
        ("num ~ age + age", "named twice"),
        ("num ~ age + num", "explain itself"),
        ("num ~ age * sex", "interactions"),
        ("num ~ log(age)", "functions"),
        ("num ~ age - 1", "interactions"),
        ("num ~ age + 0", "intercept"),
        ("num >= 2 ~ age", "no outcome"),
        ("num > nan ~ age", "no outcome"),
        ("num ~ \u0430ge", "no feature"),
        ("num ~ " + "a" * 5000, "longer than"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(FormulaUnclear, match=sentence):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        formula = parse(text)
    except FormulaUnclear:
        pass
    else:
        again = f"{formula.outcome} > {formula.above:.6f} ~ " + " + ".join(formula.features)
        assert parse(again).features == formula.features
