import pytest

from paroma.lab.simulation.founding import found


@pytest.fixture(scope="session")
def founded(tmp_path_factory):
    """A federation with a valid permit, founded once; each seed goes on from a copy."""
    return found(tmp_path_factory.mktemp("founded") / "federation")
