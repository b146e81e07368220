"""The federation that the tests of hub and site share: see `federation.py` beside this file."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

_FILE = Path(__file__).parents[1] / "hub" / "federation.py"


def _federation():
    if "paroma_test_federation" not in sys.modules:
        spec = importlib.util.spec_from_file_location("paroma_test_federation", _FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules["paroma_test_federation"] = module
        spec.loader.exec_module(module)
    return sys.modules["paroma_test_federation"]


@pytest.fixture(scope="session")
def fed():
    """The module `federation`."""
    return _federation()


@pytest.fixture(scope="session")
def founded(fed, tmp_path_factory):
    """A federation over SQLite, founded once; tests go on from copies."""
    town = fed.Town(folder=tmp_path_factory.mktemp("founded"))
    fed.found(town)
    return town


@pytest.fixture
def town(fed, store_kind, request, tmp_path):
    """Hub, four sites and their people, at rest: `town.play(scene)`."""
    if store_kind == "sqlite":
        yield fed.copied(request.getfixturevalue("founded"), tmp_path / "town")
        return
    server = request.getfixturevalue("postgres")
    prefix, schemas = f"f{os.urandom(6).hex()}", {}

    def url(name: str) -> str:
        if name not in schemas:
            schemas[name] = f"{prefix}_{name}"
            _execute(server.url, f"create schema {schemas[name]}")
        return f"{server.url}&options=-csearch_path%3D{schemas[name]}"

    made = fed.Town(folder=tmp_path / "town", urls=url)
    fed.found(made)
    yield made
    for schema in schemas.values():
        _execute(server.url, f"drop schema {schema} cascade")


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
