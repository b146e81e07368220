import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paroma.lab.processes import ProcessFailed, Program, Programs, call, free_port, listening, until

SLEEPER = [sys.executable, "-u", "-c", "import time; print('up', flush=True); time.sleep(60)"]


def up(program):
    return lambda: "up" in program.log.read_text()


@pytest.fixture
def sleeper(tmp_path):
    program = Program("sleeper", SLEEPER, tmp_path / "log")
    yield program
    program.kill()


def test_a_program_is_ready_when_it_says_so_and_stops_by_its_id(sleeper):
    sleeper.start(up(sleeper))
    pid = sleeper.pid
    assert os.getsid(pid) == pid  # Ctrl-C in our terminal does not reach it
    sleeper.stop()
    assert not sleeper.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    sleeper.stop()


def test_a_killed_program_starts_again_with_the_same_log(sleeper):
    sleeper.start(up(sleeper))
    first = sleeper.pid
    sleeper.kill()
    sleeper.start(lambda: sleeper.log.read_text().count("up") == 2)
    assert sleeper.pid != first


def test_a_program_that_ends_while_starting_is_reported_with_its_last_words(tmp_path):
    program = Program("broken", [sys.executable, "-c", "raise SystemExit('no such folder')"], tmp_path / "log")
    with pytest.raises(ProcessFailed, match="no such folder"):
        program.start(lambda: False)


def test_a_program_that_never_is_ready_is_killed(sleeper):
    with pytest.raises(ProcessFailed, match="not ready"):
        sleeper.start(lambda: False, seconds=0.3)
    assert not sleeper.running


def test_programs_stop_together_the_last_first(tmp_path):
    with Programs() as programs:
        for name in ("a", "b"):
            program = programs.add(Program(name, SLEEPER, tmp_path / name))
            program.start(up(program))
        pids = programs.pids()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.promise(5)
def test_a_parent_that_is_killed_leaves_no_child(tmp_path):
    parent = f"""
import sys, time
from pathlib import Path
from paroma.lab.processes import Program
program = Program("child", {SLEEPER!r}, Path({str(tmp_path)!r}) / "log")
program.start(lambda: "up" in program.log.read_text())
print(program.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        child = int(started.stdout.readline())
        started.send_signal(signal.SIGKILL)
    until(lambda: not _alive(child), seconds=5, sentence="the child lives")


def test_a_command_that_fails_is_told_in_its_own_words():
    with pytest.raises(ProcessFailed, match="there is no command"):
        call("fly")
    assert call("--version").startswith("paroma ")


def test_a_free_port_is_free():
    assert not listening(free_port())


def test_waiting_ends_with_the_sentence_that_was_given():
    began = time.monotonic()
    with pytest.raises(Exception, match="nothing came within"):
        until(lambda: False, seconds=0.1, sentence="nothing came")
    assert time.monotonic() - began < 2


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
