"""`paroma policy` where it needs no site: packs are tested on the machine, and wrong words are told before anything is sent."""

import json

import pytest

from paroma.cli.policy import moment
from paroma.kernel.errors import BadInput

PACK = {
    "pack.toml": 'name = "ours"\nversion = "1"\ntitle = "Ours"\nsays = "No nights."\n',
    "policies.cedar": '@id("ours-night") @because("it is night") @to_change("wait") @change("hour = 12")\n'
    'forbid(principal, action == Action::"TakePart", resource) when { context.hour >= 22 };\n',
    "tests.toml": '[[test]]\nsays = "no night"\naction = "TakePart"\nfacts = { hour = 23 }\ndecision = "refused"\npolicy = "ours-night"\n',
}


@pytest.fixture
def pack(tmp_path):
    """`pack(tests=...)`: a folder with a pack."""

    def make(**changed):
        folder = tmp_path / "ours"
        folder.mkdir(exist_ok=True)
        for name, text in PACK.items():
            (folder / name).write_text(changed.get(name.partition(".")[0], text))
        return str(folder)

    return make


def test_the_packs_of_the_release_test_themselves(paroma_run):
    status, out, _ = paroma_run("policy", "test", "--json")
    said = json.loads(out)
    assert (status, said["wrong"]) == (0, 0)
    assert {one["pack"] for one in said["tests"]} == {"base", "ehds", "gdpr", "security", "quality", "house"}
    status, out, _ = paroma_run("policy", "test", "ehds")
    assert status == 0
    assert "prohibited by Article 54" in out
    assert ", 0 wrong" in out


def test_a_pack_of_ones_own_is_tested_and_a_wrong_test_fails(paroma_run, pack):
    assert paroma_run("policy", "test", pack())[0] == 0
    status, out, _ = paroma_run("policy", "test", pack(tests=PACK["tests.toml"].replace("hour = 23", "hour = 3")))
    assert status == 1
    assert "it is allowed, expected is refused" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["test", "nothing"], "there is no pack `nothing`"),
        (["explain"], "a decision or a request is to be explained"),
        (["explain", "4f1c09aa", "--ask", "x.json"], "a decision or a request is to be explained"),
        (["replay", "no-such-folder"], "nobody is logged in"),
        (["packs"], "nobody is logged in"),
    ],
)
def test_wrong_words_are_answered_with_what_to_do(paroma_run, arguments, sentence):
    status, _, err = paroma_run("policy", *arguments)
    assert status == 1
    assert sentence in err
    assert "do: " in err


def test_a_pack_that_allows_something_is_told_at_once(paroma_run, pack):
    text = PACK["policies.cedar"].replace("forbid", "permit")
    status, _, err = paroma_run("policy", "test", pack(policies=text))
    assert status == 1
    assert "allows something" in err


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("24h", 1_000_000.0 - 86_400),
        ("7d", 1_000_000.0 - 7 * 86_400),
        ("90m", 1_000_000.0 - 5_400),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
    ],
)
def test_a_time_is_a_span_or_a_date(text, at):
    assert moment(text, 1_000_000.0) == at


@pytest.mark.parametrize("text", ["", "yesterday", "-3h", "3", "3w", "2026-13-01", "²h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadInput, match="is no time"):
        moment(text, 0.0)
