import threading

import pytest
from sqlalchemy import inspect, text

from paroma.kernel.disk import SystemDisk
from paroma.kernel.store import migrations
from paroma.kernel.store.database import StoreUnavailable
from paroma.kernel.store.migrations import DatabaseTooNew
from paroma.lab.simulation.disk import Fault, FaultyDisk, at

FIRST = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def upgrade():
    op.create_table("test_things", sa.Column("name", sa.String, primary_key=True))
    op.execute("insert into test_things values ('kept')")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    with op.batch_alter_table("test_things") as table:
        table.add_column(sa.Column("size", sa.Integer, nullable=False, server_default="7"))
"""
BROKEN = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "0003", "0002"

def upgrade():
    op.create_table("test_half", sa.Column("name", sa.String, primary_key=True))
    op.execute("insert into test_nowhere values (1)")
"""


@pytest.fixture
def versions(tmp_path):
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "v0001_first.py").write_text(FIRST)
    return folder


def test_each_step_runs_once_and_keeps_the_rows(store, versions):
    assert migrations.revision(store) is None
    assert migrations.upgrade(store, versions) == ("0001",)
    assert migrations.upgrade(store, versions) == ()
    (versions / "v0002_second.py").write_text(SECOND)
    assert migrations.upgrade(store, versions) == ("0002",)
    assert migrations.revision(store) == "0002"
    assert store.read_now(lambda tx: tx.execute(text("select name, size from test_things")).all()) == [("kept", 7)]


def test_a_fresh_database_takes_all_steps_at_once(store, versions):
    (versions / "v0002_second.py").write_text(SECOND)
    assert migrations.upgrade(store, versions) == ("0001", "0002")


def test_a_step_that_fails_leaves_the_database_as_it_was(store, versions):
    migrations.upgrade(store, versions)
    (versions / "v0002_second.py").write_text(SECOND)
    (versions / "v0003_broken.py").write_text(BROKEN)
    with pytest.raises(StoreUnavailable, match="test_nowhere"):
        migrations.upgrade(store, versions)
    assert migrations.revision(store) == "0001"
    columns = [column["name"] for column in inspect(store.engine).get_columns("test_things")]
    assert (columns, inspect(store.engine).has_table("test_half")) == (["name"], False)


@pytest.mark.parametrize("fault", [Fault.FAILS_BEFORE, Fault.FAILS_AFTER], ids=lambda fault: fault.name)
def test_after_a_failed_commit_the_upgrade_can_be_repeated(new_store, versions, fault):
    store = new_store(disk=FaultyDisk(SystemDisk(), at(1, fault)))
    with pytest.raises(StoreUnavailable):
        migrations.upgrade(store, versions)
    migrations.upgrade(store, versions)
    assert migrations.revision(store) == "0001"


def test_a_database_of_a_later_release_is_not_touched(store, versions):
    (versions / "v0002_second.py").write_text(SECOND)
    migrations.upgrade(store, versions)
    (versions / "v0002_second.py").unlink()
    with pytest.raises(DatabaseTooNew, match="0002"):
        migrations.upgrade(store, versions)


def test_programs_that_start_at_once_upgrade_once(store, new_store, versions):
    stores, done, failures = [store, new_store(), new_store()], [], []

    def start(one):
        try:
            done.append(migrations.upgrade(one, versions))
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=start, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(done) == [(), (), ("0001",)]
