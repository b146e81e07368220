import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from paroma.lab.simulation.disk import Fault
from paroma.lab.simulation.liveness import FINISHED, TROUBLE
from paroma.lab.simulation.plot import Lie, Part, plot_of
from paroma.lab.simulation.story import play

SEEDS, CHUNK = 200, 10
REPLAY = "replay with `python -m paroma.lab.simulation {}`"


@pytest.fixture(scope="module")
def reasons():
    """What became of all runs of the seeds that were played so far."""
    return Counter()


@pytest.mark.promise(2)
@pytest.mark.promise(4)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_that_happens_to_a_federation_breaks_a_promise(founded, reasons, first):
    for seed in range(first, first + CHUNK):
        seen = play(seed, founded)
        assert not seen.wrong, f"{REPLAY.format(seed)}: {seen.wrong}"
        reasons.update(seen.why.values())


def test_most_runs_come_to_their_result_and_few_lose_all_their_attempts_to_the_troubles(reasons, record_property):
    record_property("runs", dict(reasons))
    if sum(reasons.values()) >= SEEDS:  # not where only some of the tests were chosen
        assert reasons[FINISHED] > 0.7 * sum(reasons.values()), reasons
        assert reasons[TROUBLE] < 0.05 * sum(reasons.values()), reasons


def test_the_seeds_have_every_kind_of_trouble_and_every_kind_of_question(founded):
    kinds = sum((plot_of(seed, founded).kinds() for seed in range(SEEDS)), Counter())
    wanted = {
        "a lost request",
        "a lost reply",
        "a doubled request",
        "reordering",
        "a failing disk",
        "a kill at a write",
    }
    wanted |= {"a kill of the hub", "a kill of a site", "a cut", "a withdrawal", "nothing wrong"}
    wanted |= {"privacy", "exact statistics", "a regression", "an app"}
    wanted |= {f"an older copy of {part.value}" for part in Part} | {f"a lie: {lie.value}" for lie in Lie}
    assert set(kinds) == wanted
    assert min(kinds.values()) >= 3, kinds


def test_the_faults_of_disks_are_all_drawn(founded):
    drawn = {
        fault for seed in range(SEEDS) for kinds in plot_of(seed, founded).disk_chances.values() for fault in kinds
    }
    assert drawn == set(Fault)


def test_the_same_seed_gives_the_same_log_bytes(founded):
    for seed in (3, 8):
        one, other = play(seed, founded), play(seed, founded)
        assert (one.log, one.logs, one.trace) == (other.log, other.logs, other.trace)


def test_the_same_seed_gives_the_same_log_in_another_process_with_other_hashes(founded):
    seeds = ("3", "8")
    environment = dict(os.environ, PYTHONHASHSEED="4711")
    said = subprocess.run(
        [sys.executable, "-m", "paroma.lab.simulation", *seeds],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    logs = re.findall(r"federation log (\w+), trace (\w+)", said.stdout)
    here = [play(int(seed), founded) for seed in seeds]
    assert logs == [(seen.log[:16], seen.trace[:16]) for seen in here]
    assert "2 seeds, 0 wrong" in said.stdout
