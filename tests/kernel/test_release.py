import tomllib
from pathlib import Path

import paroma
from paroma.kernel.release import VERSION


def test_the_package_and_the_project_say_the_same_release():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION == paroma.__version__
