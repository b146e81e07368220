"""One federation of five real processes for all journeys: started once, by the demo's own first scenes."""

import pytest

from paroma.lab.demo import federation
from paroma.lab.demo.show import Screen
from paroma.lab.demo.story import Stage, agree_on_a_permit, start_and_join
from paroma.lab.processes import Programs


@pytest.fixture(scope="session")
def joined(tmp_path_factory):
    """Scene 1 has been played: its stage, and its sentence."""
    folder = tmp_path_factory.mktemp("federation")
    with Programs() as programs:
        stage = Stage(folder, programs, Screen(quiet=True))
        try:
            sentence = start_and_join(stage)
            yield stage, sentence
        finally:
            stage.close()


@pytest.fixture(scope="session")
def permitted(joined):
    """Scene 2 has been played as well: its stage, and its sentence."""
    stage, _ = joined
    return stage, agree_on_a_permit(stage)


@pytest.fixture
def stage(permitted) -> Stage:
    """A federation with a valid permit for statistics and logistic regression."""
    return permitted[0]


@pytest.fixture
def running(stage) -> federation.Running:
    """Its processes."""
    return stage.all()
