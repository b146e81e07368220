import io

import numpy as np
import pytest

from paroma.lab import heart
from paroma.lab.demo.federation import HOSPITALS, new_folder
from paroma.lab.demo.pooled import INPUTS, Pooled
from paroma.lab.demo.show import Held, Screen, spark
from paroma.lab.patient import rounds
from paroma.learn.algorithms.query import Drawn
from paroma.learn.flower import fab


@pytest.fixture(scope="module")
def pooled():
    return Pooled()


def test_the_four_hospitals_are_those_of_the_heart_files():
    assert {hospital.heart for hospital in HOSPITALS} == set(heart.HOSPITALS)
    assert len({hospital.owner for hospital in HOSPITALS}) == 4


def test_the_pooled_fit_stands_still(pooled):
    fit = pooled.fit()
    p = 1 / (1 + np.exp(-pooled.x @ fit.coefficients))
    assert np.abs(pooled.x.T @ (pooled.y - p)).max() < 1e-10
    assert (fit.errors > 0).all()


def test_two_drawn_parts_are_all_rows_and_share_none(pooled):
    zero = (0.0,) * pooled.x.shape[1]
    sizes = [
        pooled.judge(zero, Drawn(over=INPUTS, salt="s", low=low, high=high))[0]
        for low, high in ((0.0, 0.66), (0.66, 1.0))
    ]
    assert sum(sizes) == 740
    assert 200 < sizes[1] < 300


def test_a_model_that_knows_nothing_is_right_in_half_of_the_pairs(pooled):
    zero = (0.0,) * pooled.x.shape[1]
    assert pooled.judge(zero, Drawn(over=INPUTS, salt="s", low=0.0, high=1.0))[2] == 0.5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("“S” counted you in 4 rounds (1 to 3, 5) on 24 November", (1, 2, 3, 5)),
        ("You were counted in round 1 on 3 March 2026.", (1,)),
        ("You have not been counted.", ()),
    ],
)
def test_rounds_are_read_from_a_sentence(text, found):
    assert rounds(text) == found


def test_a_quiet_screen_says_nothing():
    out = io.StringIO()
    screen = Screen(out, quiet=True)
    screen.scene(Held(scene=1, title="t", sentence="s", held=True, seconds=1.0))
    screen.drawn("loss", [1.0, 0.5])
    assert out.getvalue() == ""


def test_a_scene_is_one_line_with_its_number_mark_and_time():
    out = io.StringIO()
    Screen(out).scene(Held(scene=3, title="t", sentence="one call", held=False, seconds=1.25))
    assert out.getvalue() == "  3 ✗ one call  (1.2 s)\n"


def test_a_line_of_bars_goes_from_the_highest_to_the_lowest():
    assert spark([1.0, 0.5, 0.0]) == "█▅▁"
    assert spark([2.0, 2.0]) == "▁▁"


def test_a_second_demo_removes_what_a_crashed_one_left_and_nothing_else(tmp_path):
    here = {"XDG_STATE_HOME": str(tmp_path)}
    first = new_folder(here)
    second = new_folder(here)
    assert first.exists()  # its process, this one, lives
    (first / "pid").write_text("999999999")
    new_folder(here)
    assert not first.exists()
    assert second.exists()


def test_the_demos_flower_app_is_a_sound_bundle():
    from importlib.resources import as_file, files

    with as_file(files("paroma.lab.demo") / "flower_app") as app:
        assert fab.read(fab.build(app)).name == "heartapp"
