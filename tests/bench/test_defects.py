"""The planted defects themselves: each does wrong what it is said to do wrong."""

import sqlite3
import time
from contextlib import closing

import pytest

from paroma.bench import defects
from paroma.bench.defects import Late
from paroma.kernel.errors import BadInput


class Kept:
    """A register in memory."""

    def __init__(self):
        self.content = b"old"

    def read(self):
        return self.content

    def swap(self, old, new):
        assert old == self.content
        self.content = new


def test_a_late_register_says_what_is_not_written_yet_and_writes_it_later():
    kept = Kept()
    late = Late(kept, 0.2)
    late.swap(b"old", b"new")
    assert (late.read(), kept.content) == (b"new", b"old")  # what a kill would leave now
    until = time.monotonic() + 10
    while kept.content == b"old" and time.monotonic() < until:
        time.sleep(0.02)
    assert kept.content == b"new"


def rows_of(database):
    with closing(sqlite3.connect(database)) as opened:
        return [row[0] for row in opened.execute("select x from t order by x")]


def test_a_database_that_is_written_behind_holds_what_was_there_at_the_last_copy(tmp_path):
    database = tmp_path / "site.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as opened:
        opened.execute("create table t (x integer)")
        opened.execute("insert into t values (1)")
    working = defects.behind(database)
    with closing(sqlite3.connect(working, isolation_level=None)) as opened:
        opened.execute("insert into t values (2)")
    assert (rows_of(working), rows_of(database)) == ([1, 2], [1])
    defects.written_back(working, database)
    assert rows_of(database) == [1, 2]
    with closing(sqlite3.connect(working, isolation_level=None)) as opened:
        opened.execute("insert into t values (3)")
    assert rows_of(defects.behind(database)) == [1, 2]  # after a kill it starts from the older copy


def test_an_unknown_defect_names_those_that_there_are(tmp_path):
    with pytest.raises(BadInput) as caught:
        defects.run("typo", tmp_path)
    assert all(name in caught.value.do for name in defects.DEFECTS)


def test_every_defect_is_described():
    assert all(f"`{name}`" in str(defects.__doc__) for name in defects.DEFECTS)
