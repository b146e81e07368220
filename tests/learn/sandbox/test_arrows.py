"""Who may reach what: no program loads flwr, and none runs tasks without walls."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paroma

HOUSE = Path(paroma.__file__).parent
PROGRAMS = ("hub", "site", "sdk", "web", "learn", "data", "operate", "trust", "kernel")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.promise(1)
@pytest.mark.parametrize("room", PROGRAMS)
def test_no_program_runs_tasks_without_walls(room):
    for path in (HOUSE / room).rglob("*.py"):
        assert not any(name.startswith("paroma.lab") for name in imports(path)), path


@pytest.mark.parametrize("module", ["fab", "messages", "rule", "session"])
def test_what_a_program_reads_of_a_flower_app_loads_no_flwr(module):
    script = f"import sys, paroma.learn.flower.{module}; print([m for m in sys.modules if m == 'flwr' or m.startswith('flwr.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_only_the_worker_parts_of_the_flower_room_name_flwr():
    named = {p.name for p in HOUSE.rglob("*.py") if any(n.split(".")[0] == "flwr" for n in imports(p))}
    assert named <= {
        "app.py",
        "client.py",
        "server.py",
        *(p.name for p in (HOUSE / "lab").rglob("*.py")),
        *(p.name for p in (HOUSE / "bench").rglob("*.py")),
    }
