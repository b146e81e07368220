"""How a peer is asked and its log is read; no peer is installed here."""

import sys

import pytest

from paroma.bench.peers import nvflare_rounds
from paroma.bench.peers.environment import Environment, PeerUnavailable

LOG = """2026-11-24 19:28:28,716 - FedAvg - INFO - [identity=x, task_id=9c] - Aggregated 1/2 results
2026-11-24 19:28:29,280 - FedAvg - INFO - [identity=x, task_id=8c] - Aggregated 2/2 results
                                Round 1 started.
2026-11-24 19:28:30,076 - FedAvg - INFO - [identity=x, task_id=41] - Aggregated 1/2 results
2026-11-24 19:28:30,780 - FedAvg - INFO - [identity=x, task_id=3c] - Aggregated 2/2 results
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    return Environment(tmp_path)


def script(tmp_path, text):
    file = tmp_path / "peer.py"
    file.write_text(text)
    return file


def test_a_round_of_nvflare_ends_with_the_last_reply_in_its_servers_log():
    ends = nvflare_rounds.last_replies(LOG, 2)
    assert len(ends) == 2
    assert ends[1] - ends[0] == pytest.approx(1.5)


def test_a_round_with_a_reply_too_few_is_no_round():
    assert nvflare_rounds.last_replies(LOG, 3) == []


def test_a_peer_that_goes_on_answers_each_time_it_is_asked(here, tmp_path):
    echo = script(
        tmp_path, "import json, sys\nfor n, _ in enumerate(sys.stdin): print(json.dumps({'n': n}), flush=True)"
    )
    with here.asking(echo, (), seconds=30) as ask:
        assert [ask()["n"], ask()["n"]] == [0, 1]


@pytest.mark.parametrize(("text", "seconds", "why"), [
    pytest.param("input(); print('no figures', flush=True); input()", 30, "printed no figures", id="talks of other things"),
    pytest.param("import time; time.sleep(30)", 0.5, "took longer", id="is silent"),
    pytest.param("raise SystemExit", 30, "has ended|no figures", id="has ended"),
])  # fmt: skip
def test_a_peer_that_does_not_answer_is_unavailable_and_does_not_live_on(here, tmp_path, text, seconds, why):
    with here.asking(script(tmp_path, text), (), seconds=seconds) as ask, pytest.raises(PeerUnavailable, match=why):
        ask()


def test_a_script_that_prints_no_figures_is_unavailable(here, tmp_path):
    with pytest.raises(PeerUnavailable, match="printed no figures"):
        here.run(script(tmp_path, "print([1])"), (), seconds=30)
