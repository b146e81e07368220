"""The walls that import contracts do not see."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import paroma

HOUSE = Path(paroma.__file__).parent
DOORS = {HOUSE, HOUSE / "cli", HOUSE / "sdk"}  # the package itself, the command and the notebook's import
PACKAGES = sorted(path for path in HOUSE.rglob("__init__.py") if path.parent not in DOORS)
HEAVY = {"numpy", "pyarrow", "flwr", "starlette", "sqlalchemy", "alembic", "granian", "cedarpy", "pandas", "torch"}


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(HOUSE)))
def test_the_init_of_a_wing_or_room_holds_a_docstring_only(path):
    # what an `__init__` imports is in no layer: it could join what the contracts keep apart
    statements = ast.parse(path.read_text()).body
    assert len(statements) == 1, f"{path} holds more than a docstring"
    assert isinstance(statements[0], ast.Expr)
    assert isinstance(statements[0].value, ast.Constant)
    assert isinstance(statements[0].value.value, str)


def test_importing_paroma_loads_nothing_heavy():
    program = "import paroma, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in json.loads(loaded.stdout)}


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_check_is_switched_off_by_an_option_of_the_interpreter(path):
    # `python -O` drops asserts and what stands under `if __debug__`; an invariant raises AssertionError in so many words
    dropped = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]
    assert dropped == []
