"""Typer imports names that click 8.2 and later call deprecated; nothing of ours can change that."""

import os
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer  # noqa: F401

import pytest

from paroma.cli import start


@pytest.fixture
def paroma_run(capsys, tmp_path):
    """`paroma_run("run", "list")`: status, stdout, stderr of a command of somebody with an empty home."""
    before = os.environ.get("PAROMA_HOME")
    os.environ["PAROMA_HOME"] = str(tmp_path / "home")

    def run(*arguments):
        status = start.run(arguments)
        out = capsys.readouterr()
        return status, out.out, out.err

    yield run
    if before is None:
        del os.environ["PAROMA_HOME"]
    else:
        os.environ["PAROMA_HOME"] = before
