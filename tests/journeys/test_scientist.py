"""A data scientist: every wrong turn ends in a sentence that says what would pass."""

from importlib.resources import as_file, files

import pytest

from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.lab.demo.story import BENEFIT
from paroma.sdk.study import NoPermit


@pytest.fixture
def lena(stage):
    return stage.lena()


@pytest.mark.promise(3)
@pytest.mark.parametrize("purpose", ["marketing", "curiosity"])
def test_a_purpose_that_the_law_does_not_know_is_refused_at_once(lena, purpose):
    with pytest.raises(ParomaError) as refused:
        lena.apply(
            "A study", purpose=purpose, data_set="heart", features=["age"], algorithms=["statistics"], benefit=BENEFIT
        )
    assert refused.value.do


def test_a_feature_that_the_data_set_does_not_have_is_named(lena):
    with pytest.raises(BadInput) as wrong:
        lena.apply(
            "A study", purpose="scientific-research", data_set="heart", features=["shoe_size"],
            algorithms=["statistics"], benefit=BENEFIT,
        )  # fmt: skip
    assert "shoe_size" in wrong.value.message
    assert "`age`" in wrong.value.do


@pytest.mark.promise(3)
def test_an_algorithm_without_a_permit_is_not_run(stage):
    with as_file(files("paroma.lab.demo") / "flower_app") as app, pytest.raises(NoPermit):
        stage.permitted().flower(app)


def test_a_formula_with_an_unknown_feature_is_refused_with_the_next_step(stage):
    with pytest.raises((BadInput, Refused)) as wrong:
        stage.permitted().logistic("num ~ age + shoe_size")
    assert "shoe_size" in wrong.value.message


def test_two_connections_of_one_person_see_the_same_studies(stage, running):
    from paroma.sdk.connection import Connection

    with Connection(running.talk("lena")) as again:
        assert {one.id for one in again.studies()} == {one.id for one in stage.lena().studies()}
