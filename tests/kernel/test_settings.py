from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from paroma.kernel.settings import SettingInvalid, load, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    url: str = "sqlite:///records.db"
    pool: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    title: str
    poll_seconds: float = 25.0
    listen: bool = True
    folder: Path = Path("records")
    mode: Literal["masked", "per-site"] = "masked"
    replicas: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    proxy: str | None = None
    database: Database = field(default_factory=Database)


@pytest.fixture
def read(tmp_path):
    def run(content="", environ=None):
        file = tmp_path / "site.toml"
        file.write_text(content)
        return load(Program, file, environ or {})

    return run


def test_the_file_fills_the_settings_and_the_rest_is_as_declared(read, tmp_path):
    found = read(
        'title = "St. Anna"\npoll_seconds = 10\nlisten = false\nfolder = "kept"\nmode = "per-site"\n'
        'origins = ["https://a", "https://b"]\nproxy = "http://p"\nreplicas = ["/a", "b"]\n[database]\nurl = "postgresql://x"\n'
    )
    assert found == Program(
        title="St. Anna",
        poll_seconds=10.0,
        listen=False,
        folder=tmp_path / "kept",
        mode="per-site",
        replicas=(Path("/a"), tmp_path / "b"),
        origins=("https://a", "https://b"),
        proxy="http://p",
        database=Database(url="postgresql://x"),
    )
    assert isinstance(found.poll_seconds, float)


def test_the_environment_wins_and_other_variables_are_not_looked_at(read):
    environ = {
        "PAROMA_TITLE": "St. Beda",
        "PAROMA_LISTEN": "false",
        "PAROMA_POLL_SECONDS": "1.5",
        "PAROMA_ORIGINS": "https://a, https://b,",
        "PAROMA_DATABASE_POOL": "3",
        "HOME": "/root",
    }
    found = read('title = "St. Anna"\n[database]\npool = 9\n', environ)
    assert (found.title, found.listen, found.poll_seconds, found.database.pool) == ("St. Beda", False, 1.5, 3)
    assert found.origins == ("https://a", "https://b")
    assert load(Program, None, {"PAROMA_TITLE": "alone"}).title == "alone"


def test_a_program_may_have_its_own_variables():
    assert load(Program, None, {"PAROMA_SITE_TITLE": "x", "PAROMA_OTHER": "y"}, prefix="PAROMA_SITE_").title == "x"


@pytest.mark.parametrize(
    ("content", "environ", "sentence"),
    [
        pytest.param(
            "",
            {},
            "the setting `title` is missing; set `title` in `.*site.toml`, or `PAROMA_TITLE`, to a text",
            id="missing",
        ),
        pytest.param("title = 5", {}, "site.toml`: the key `title` is `5`; set it to a text", id="a number for a text"),
        pytest.param(
            'title="x"\npoll_seconds="5"', {}, "`poll_seconds` is `5`; set it to a number", id="a text for a number"
        ),
        pytest.param(
            'title="x"\npoll_seconds=nan', {}, "`poll_seconds` is `nan`; set it to a number", id="not a number"
        ),
        pytest.param('title="x"\nlisten=1', {}, "`listen` is `1`; set it to true or false", id="a number for a switch"),
        pytest.param(
            'title="x"\nmode="open"', {}, "set it to one of `masked`, `per-site`", id="a word that is none of them"
        ),
        pytest.param(
            'title="x"\norigins="a"', {}, "`origins` is `a`; set it to a list of texts", id="a text for a list"
        ),
        pytest.param(
            'title="x"\npol_seconds=1',
            {},
            "the key `pol_seconds` is unknown; did you mean `poll_seconds`?",
            id="misspelt",
        ),
        pytest.param('title="x"\nzzz=1', {}, "`zzz` is unknown; remove it; known are `database`", id="unknown"),
        pytest.param(
            'title="x"\n[database]\nurrl="x"',
            {},
            r"the key `database.urrl` is unknown; did you mean `url`\?",
            id="misspelt below",
        ),
        pytest.param(
            'title="x"\n[database]\npool=true',
            {},
            "the key `database.pool` is `True`; set it to a whole number",
            id="a switch for a number",
        ),
        pytest.param('title="x"\ndatabase="x"', {}, r"`database` is no table; write `\[database\]`", id="no table"),
        pytest.param('title="x"\ntitle="y"', {}, "site.toml` is no TOML", id="a key twice"),
        pytest.param(
            'title="x"',
            {"PAROMA_DATABASE_POOL": "many"},
            "variable `PAROMA_DATABASE_POOL` is `many`; set it to a whole number",
            id="variable",
        ),
        pytest.param(
            'title="x"',
            {"PAROMA_LISTEN": "1"},
            "variable `PAROMA_LISTEN` is `1`; set it to true or false",
            id="variable for a switch",
        ),
        pytest.param(
            'title="x"',
            {"PAROMA_TITEL": "1"},
            "`PAROMA_TITEL` names no setting; did you mean `PAROMA_TITLE`?",
            id="misspelt variable",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_the_form_expected(read, content, environ, sentence):
    with pytest.raises(SettingInvalid, match=sentence):
        read(content, environ)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(SettingInvalid, match="cannot be read"):
        load(Program, tmp_path / "none.toml", {})


def test_the_reference_can_list_every_variable():
    assert ("PAROMA_DATABASE_URL", "a text") in names(Program)
    assert ("PAROMA_REPLICAS", "a list of paths") in names(Program)
    assert len(names(Program)) == 10
