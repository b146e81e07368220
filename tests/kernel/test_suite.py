"""The suite itself says what it did not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = """
import pytest

def test_plain(): pass

@pytest.mark.data
def test_of_data(published): pass

@pytest.mark.apt("no-such-package-anywhere")
def test_of_a_package(): pass

@pytest.mark.soak
def test_long(): pass

def test_of_a_store(store): assert store.dialect in ("sqlite", "postgresql")
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)

    def run(*options, **environ):
        kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PAROMA_DATA")}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            ROOT / "pyproject.toml",
            "--rootdir",
            tmp_path,
            "-p",
            "conftest",
            tmp_path,
        ]
        done = subprocess.run(
            [*command, *options],
            env=kept | {"PYTHONPATH": str(ROOT / "tests")} | environ,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout

    return run


def test_what_is_missing_is_left_out_counted_and_no_failure(suite):
    status, said = suite()
    assert status == 0, said
    assert "2 passed" in said
    assert "not run: 1 tests, for want of the data and vectors in PAROMA_DATA" in said
    assert "not run: 1 tests, for want of the Debian package `no-such-package-anywhere`" in said


def test_with_ci_set_what_was_not_run_is_a_failure(suite):
    assert suite(CI="true")[0] == 1
    assert suite("--deselect", "test_sample.py::test_of_a_package", CI="true", PAROMA_DATA=str(ROOT))[0] == 1
    status, said = suite("-k", "plain or store", CI="true", PAROMA_DATA=str(ROOT))
    assert "2 passed" in said
    assert status == 1  # the package is still missing: choosing tests does not hide it


def test_with_the_data_there_its_tests_run(suite):
    status, said = suite(PAROMA_DATA=str(ROOT))
    assert (status, "3 passed" in said, "PAROMA_DATA" in said) == (0, True, False)


def test_the_soak_runs_only_when_asked_for(suite):
    status, said = suite("-m", "soak")
    assert (status, "1 passed" in said) == (0, True)


def test_store_tests_run_on_each_store_asked_for(suite):
    status, said = suite("--store=both", "-vv", "-k", "of_a_store")
    assert status == 0, said
    assert "test_of_a_store[sqlite] PASSED" in said
    assert "test_of_a_store[postgres] PASSED" in said
