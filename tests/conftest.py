"""What every test may ask for, and an honest account of what was not run.

--store=sqlite|postgres|both: which database the tests that use a store run on. PostgreSQL is started once, and each test has
a schema of its own. Tests marked `data`, `apt` or `soak` are left out where their need is not met; a closing line says so, and
with CI=true anything left out (but the soak, which has its own command) makes the run fail.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from paroma.kernel.blocking import Threads
from paroma.kernel.disk import Disk, SystemDisk
from paroma.kernel.store.database import Store, open_store
from paroma.lab.postgres import Postgres

NOT_RUN = pytest.StashKey[Counter[str]]()
POSTGRES = pytest.StashKey[Postgres]()
KINDS = {"sqlite": ["sqlite"], "postgres": ["postgres"], "both": ["sqlite", "postgres"]}


def pytest_addoption(parser):
    parser.addoption("--store", choices=sorted(KINDS), default="sqlite", help="database of the tests that use a store")


def pytest_configure(config):
    config.stash[NOT_RUN] = Counter()


def pytest_generate_tests(metafunc):
    if "store_kind" in metafunc.fixturenames:
        kinds = KINDS[metafunc.config.getoption("--store")]
        metafunc.parametrize("store_kind", kinds, indirect=True)


def pytest_collection_modifyitems(config, items):
    kept, dropped = [], []
    for item in items:
        reason = _missing(item)
        if reason:
            config.stash[NOT_RUN][reason] += 1
        soak = item.get_closest_marker("soak") and "soak" not in config.getoption("markexpr")
        (dropped if reason or soak else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_sessionfinish(session):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    for report in terminal.stats.get("skipped", []):
        session.config.stash[NOT_RUN][report.longrepr[2].removeprefix("Skipped: ")] += 1
    if session.config.stash[NOT_RUN] and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    for reason, count in sorted(config.stash[NOT_RUN].items()):
        terminalreporter.write_line(f"not run: {count} tests, {reason}", yellow=True)


def pytest_unconfigure(config):
    server = config.stash.get(POSTGRES, None)
    if server is not None:
        server.stop()


def _missing(item) -> str | None:
    if item.get_closest_marker("data") and not os.environ.get("PAROMA_DATA"):
        return "for want of the data and vectors in PAROMA_DATA"
    for marker in item.iter_markers("apt"):
        if not _installed(marker.args[0]):
            return f"for want of the Debian package `{marker.args[0]}`"
    return None


def _installed(package: str) -> bool:
    if shutil.which(package):
        return True
    query = shutil.which("dpkg-query")
    if query is None:
        return False
    found = subprocess.run([query, "-W", "-f", "${Status}", package], capture_output=True, text=True, check=False)
    return found.stdout == "install ok installed"


@pytest.fixture
def store_kind(request):
    """`sqlite` or `postgres`: what `new_store` makes."""
    return request.param


@pytest.fixture(scope="session")
def postgres(request) -> Postgres:
    """The one PostgreSQL of this run, started when first asked for."""
    return _the_postgres(request.config)


def _the_postgres(config) -> Postgres:
    if POSTGRES not in config.stash:
        config.stash[POSTGRES] = Postgres.start()
    return config.stash[POSTGRES]


@pytest.fixture
def database(store_kind, tmp_path, request) -> Iterator[Callable[[str], str]]:
    """Addresses of databases that are empty at first; the same name again is the same database."""
    if store_kind == "sqlite":
        yield lambda name: f"sqlite:///{tmp_path / name}.db"
        return
    server, prefix = _the_postgres(request.config), f"t{os.urandom(6).hex()}"
    schemas: dict[str, str] = {}

    def url(name: str) -> str:
        if name not in schemas:
            schemas[name] = f"{prefix}_{name}"
            _execute(server.url, f"create schema {schemas[name]}")
        return f"{server.url}&options=-csearch_path%3D{schemas[name]}"

    yield url
    for schema in schemas.values():
        _execute(server.url, f"drop schema {schema} cascade")


@pytest.fixture
def new_store(database) -> Iterator[Callable[..., Store]]:
    """Makes stores, each with its own empty database: `new_store()`, `new_store("site", disk=FailingDisk(...))`.

    The same name again opens the same database again: what a restarted program finds.
    """
    opened: list[Store] = []
    threads = Threads(4, "test-store")

    def make(name: str = "main", *, disk: Disk | None = None) -> Store:
        opened.append(open_store(database(name), threads, disk or SystemDisk()))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
    threads.close()


@pytest.fixture
def store(new_store) -> Store:
    """An empty store. A room's tests begin with `METADATA.create_all(store.engine)`."""
    return new_store()


@pytest.fixture
def published() -> Path:
    """The folder of published vectors and real data; only for tests marked `data`."""
    return Path(os.environ["PAROMA_DATA"])


# -- a federation in one process, for the tests of the hub, of the site, and of what spans them


@pytest.fixture(scope="session")
def fed():
    """The module `hub/federation.py`."""
    name = "paroma_test_federation"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "hub" / "federation.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def founded(fed, tmp_path_factory):
    """A federation over SQLite, founded once; tests go on from copies."""
    town = fed.Town(folder=tmp_path_factory.mktemp("founded"))
    fed.found(town)
    return town


@pytest.fixture(scope="session")
def founded_on_postgres(fed, tmp_path_factory, request):
    """The same over PostgreSQL: the federation, and the name of the one database that holds all its schemas."""
    server, name = _the_postgres(request.config), f"founded_{os.urandom(6).hex()}"
    _execute(server.url, f"create database {name}")
    town = fed.Town(folder=tmp_path_factory.mktemp("founded-postgres"), urls=_schemas(server, name))
    for program in ("hub", *fed.PLACES):
        _execute(_in_database(server, name), f"create schema {program}")
    fed.found(town)
    return town, name


@pytest.fixture
def town(fed, store_kind, request, tmp_path):
    """Hub, four sites and their people, at rest: `town.play(scene)`."""
    if store_kind == "sqlite":
        yield fed.copied(request.getfixturevalue("founded"), tmp_path / "town")
        return
    original, template = request.getfixturevalue("founded_on_postgres")
    server, name = _the_postgres(request.config), f"town_{os.urandom(6).hex()}"
    _execute(server.url, f"create database {name} template {template}")
    made = fed.copied(original, tmp_path / "town")
    made.urls = _schemas(server, name)
    yield made
    _execute(server.url, f"drop database {name}")  # fails where a connection was left open


def _in_database(server: Postgres, name: str) -> str:
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)


def _schemas(server: Postgres, name: str) -> Callable[[str], str]:
    return lambda program: f"{_in_database(server, name)}&options=-csearch_path%3D{program}"


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
