"""The versions of the database are the tables that the rooms describe."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from paroma.hub import parts as hub
from paroma.kernel.store import migrations
from paroma.site import parts as site


@pytest.mark.parametrize("program", [hub, site], ids=["hub", "site"])
def test_the_versions_make_the_tables_that_the_code_uses(new_store, program):
    store = new_store("versions")
    migrations.upgrade(store, program.VERSIONS)
    together = MetaData()
    for metadata in program.METADATAS:
        for table in metadata.tables.values():
            table.to_metadata(together)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = [one for one in compare_metadata(context, together) if "alembic_version" not in str(one)]
    assert found == []
