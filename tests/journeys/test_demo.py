"""The demo: every scene holds, and its command says so and leaves nobody behind."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from paroma.lab.demo import story
from paroma.lab.demo.story import SCENES
from paroma.lab.processes import command


def test_one_hub_and_four_sites_join_with_one_line_each(joined):
    stage, sentence = joined
    assert len(stage.programs.pids()) == 5
    assert "920 patients" in sentence


@pytest.mark.promise(3)
def test_one_hospital_refuses_a_wrong_purpose_and_says_what_would_pass(permitted):
    _, sentence = permitted
    assert "Zurich and Basel refuses" in sentence
    assert "for instance `scientific-research`" in sentence


def test_statistics_of_one_call_are_those_of_the_pooled_rows(stage):
    assert "740 patients" in story.one_call_statistics(stage)


def test_coefficients_are_those_of_the_pooled_fit(stage):
    assert "equal statsmodels" in story.logistic_regression(stage)


@pytest.mark.promise(2)
def test_a_patient_who_withdraws_in_round_three_is_in_nothing_that_her_clinic_votes_for_afterwards(stage):
    assert "said no in round 3" in story.withdrawal(stage)


@pytest.mark.promise(1)
def test_a_site_that_is_killed_spends_no_budget_twice(stage):
    assert "none twice" in story.kill_minus_nine(stage)


@pytest.mark.promise(1)
def test_an_unchanged_flower_app_runs_under_the_same_masks(stage):
    assert "unchanged Flower app" in story.flower_app(stage)


@pytest.mark.promise(4)
def test_a_byte_of_the_log_that_somebody_edits_stops_uses_and_no_withdrawal(stage):
    assert "noticed within" in story.edited_log(stage)


@pytest.mark.promise(4)
def test_the_auditor_is_told_what_the_log_proves_and_what_it_does_not(stage):
    sentence = story.verify_the_log(stage)
    assert "not a byte differs" in sentence
    assert "It does not prove" in sentence


def test_every_scene_needs_only_scenes_before_it():
    assert len(SCENES) == 9
    for number, (_, _, needs) in enumerate(SCENES, 1):
        assert all(need < number for need in needs)


@pytest.mark.promise(5)
def test_the_command_prints_one_object_and_leaves_no_process_behind(tmp_path):
    environment = {**os.environ, "CI": "true", "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        command("demo", "--scene", "2", "--json"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["held"] is True
    assert [scene["scene"] for scene in said["scenes"]] == [2]
    assert not _processes_about(said["folder"])


def _processes_about(folder):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if folder.encode() in words:
            found.append(process.name)
    return found
