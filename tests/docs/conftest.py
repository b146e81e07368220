"""The documents, and the generator of the reference."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def generate():
    """docs/reference/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "reference" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def help_text(generate):
    """Every command's own help."""
    return generate.commands()


@pytest.fixture(scope="session")
def pages():
    """Every document that people read: (path, text)."""
    found = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    return [(path, path.read_text()) for path in found if "_build" not in path.parts]


@pytest.fixture(scope="session")
def commands_in():
    """Every `paroma` command in the code blocks of a text, with those inside of `$(...)`, as one line each."""

    def find(text):
        blocks = re.findall(r"^```(?:console|sh)\n(.*?)^```|^((?:    .*\n)+)", text, re.MULTILINE | re.DOTALL)
        for block in ("".join(pair) for pair in blocks):
            for line in block.replace("\\\n", " ").splitlines():
                todo = [line.partition("  # ")[0].partition("   # ")[0]]
                while todo:
                    part = todo.pop()
                    while inner := re.search(r"\$\(([^()]*(?:\([^()]*\))*[^()]*)\)", part):
                        todo.append(inner.group(1))
                        part = part[: inner.start()] + "X" + part[inner.end() :]
                    for piece in re.split(r"\s[|&;]\s|;\s", part):
                        if match := re.search(r"(?:^|\$ |\s)paroma ([a-z-].*)", piece):
                            yield match.group(1).strip()

    return find
