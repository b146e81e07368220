"""A production form: the hub and the hospitals keep everything in PostgreSQL, and lose their connections to it."""

import contextlib
import os
import signal
import time

import pytest
from sqlalchemy import create_engine, make_url, text

from paroma.kernel.errors import Unavailable
from paroma.lab.demo.federation import HOSPITALS
from paroma.lab.demo.show import Screen
from paroma.lab.demo.story import (
    FORMULA,
    RUN_SECONDS,
    Stage,
    agree_on_a_permit,
    one_call_statistics,
    start_and_join,
    verify_the_log,
)
from paroma.lab.processes import Programs

CUT = text("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = any(:databases)")
ONE = text("select pid from pg_stat_activity where datname = :name limit 1")
TABLES = text("select count(*) from pg_tables where schemaname = 'public'")


@pytest.fixture(scope="module")
def operator(postgres):
    """Who may cut connections."""
    engine = create_engine(postgres.url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def databases(operator, postgres):
    """Addresses of empty databases: of the hub, and of two hospitals; the other two keep SQLite."""
    mark = os.urandom(4).hex()
    names = {program: f"{program}_{mark}" for program in ("hub", HOSPITALS[0].key, HOSPITALS[1].key)}
    address = make_url(postgres.url)
    with operator.connect() as connection:
        for name in names.values():
            connection.execute(text(f"create database {name}"))
    yield {program: address.set(database=name).render_as_string(hide_password=False) for program, name in names.items()}
    with operator.connect() as connection:
        for name in names.values():
            connection.execute(text(f"drop database {name} with (force)"))


@pytest.fixture(scope="module")
def stage(databases, tmp_path_factory):
    """The federation of the demo on these databases, after its first two scenes."""
    with Programs() as programs:
        stage = Stage(tmp_path_factory.mktemp("federation"), programs, Screen(quiet=True), databases=databases)
        try:
            start_and_join(stage)
            agree_on_a_permit(stage)
            yield stage
        finally:
            stage.close()


def test_hub_and_hospitals_on_postgresql_give_the_figures_of_the_pooled_rows(stage, databases):
    one_call_statistics(stage)
    for address in databases.values():
        engine = create_engine(address)
        with engine.connect() as connection:
            assert connection.execute(TABLES).scalar_one() > 10
        engine.dispose()
    files = {path.parent.name for path in stage.folder.glob("*/*.db")}
    assert files == {HOSPITALS[2].key, HOSPITALS[3].key}  # nothing lies beside the database that was named


def test_a_run_goes_on_while_its_databases_cut_every_connection_and_recover_from_kill_9(
    stage, databases, operator, postgres
):
    """At each of the run's first changes all connections are cut; then one of the server's processes is killed, which ends
    all others: PostgreSQL recovers as after a power cut, and nobody starts hub or hospitals again."""
    names = [make_url(address).database for address in databases.values()]
    before, cuts, killed = stage.programs.pids(), [], False
    run = stage.permitted().logistic(FORMULA)
    ends = time.monotonic() + RUN_SECONDS
    while not run.over and time.monotonic() < ends:
        with contextlib.suppress(Unavailable):  # the hub says so while its database recovers
            for _report in run.reports(seconds=RUN_SECONDS):
                if killed:
                    continue
                with operator.connect() as connection:
                    if len(cuts) < 3:
                        cuts.append(connection.execute(CUT, {"databases": names}).scalar_one())
                    else:
                        os.kill(connection.execute(ONE, {"name": names[0]}).scalar_one(), signal.SIGKILL)
                        killed = True
    assert run.status == "finished", run.report.reason
    assert killed
    assert all(cuts)
    assert "database system was interrupted" in (postgres.folder / "log").read_text()
    assert stage.programs.pids() == before
    verify_the_log(stage)
