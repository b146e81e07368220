import json
import subprocess
import sys
import time

import pytest
from typer.main import get_command

import paroma
from paroma.cli import start
from paroma.cli.run import selection
from paroma.kernel.errors import BadInput
from paroma.learn.algorithms.query import Drawn, Marked


def commands():
    for group, (_, load) in start.GROUPS.items():
        yield from inside(group, "", get_command(load()))


def inside(group, name, command):
    if not hasattr(command, "commands"):
        yield group, name, command
        return
    for inner, made in command.commands.items():
        yield from inside(group, f"{name} {inner}".strip(), made)


def test_every_command_has_a_sentence_of_help_and_json():
    for group, name, command in commands():
        assert command.help, f"{group} {name}"
        assert "--json" in {option for p in command.params for option in p.opts}, f"{group} {name}"


@pytest.mark.parametrize("group", list(start.GROUPS))
def test_help_of_each_group_is_printed(paroma_run, group):
    status, out, err = paroma_run(group, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: paroma {group} ")


def test_help_lists_every_group(paroma_run):
    for arguments in ((), ("--help",), ("-h",)):
        status, out, _ = paroma_run(*arguments)
        assert status == 0
        assert all(f"\n  {group} " in out for group in start.GROUPS)


def test_the_release_is_told(paroma_run):
    assert paroma_run("--version")[:2] == (0, f"paroma {paroma.__version__}\n")
    assert json.loads(paroma_run("--version", "--json")[1]) == {"version": paroma.__version__}


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["frobnicate"], 2, "there is no command `frobnicate`"),
        (["run", "frobnicate"], 2, "no such command `frobnicate`"),
        (["run", "logistic", "num ~ age"], 2, "missing option `--study`"),
        (["hub", "init", "x", "--port", "0"], 2, "invalid value for `--port`"),
        (["whoami"], 1, "nobody is logged in as profile `default`"),
        (["study", "list"], 1, "nobody is logged in"),
        (["permit", "show", "permit-1"], 1, "nobody is logged in"),
        (["run", "list"], 1, "nobody is logged in"),
        (["site", "status"], 1, "nobody is logged in"),
        (["site", "open"], 1, "nobody is logged in"),
        (["site", "open", "cellar"], 1, "there is no such page"),
        (["study", "open", "cellar"], 1, "there is no such page"),
        (["login", "paroma-login:x"], 1, "this is not a whole login line"),
        (["whoami", "--profile", "../x"], 1, "cannot be a name"),
        (["audit", "verify", "--folder", "/nowhere"], 1, "there is no `keys.json`"),
    ],
)
def test_an_error_is_a_sentence_with_a_next_step(paroma_run, arguments, status, error):
    got, out, err = paroma_run(*arguments)
    assert (got, out) == (status, "")
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("  do: ")

    got, out, err = paroma_run(*arguments, "--json")
    assert (got, err) == (status, "")
    assert error in json.loads(out)["error"]
    assert json.loads(out).keys() == {"error", "do"}


def test_a_hub_is_made_and_invites(paroma_run, tmp_path):
    folder = str(tmp_path / "hub")
    status, out, _ = paroma_run("hub", "init", "Heart", "--folder", folder, "--json")
    assert (status, json.loads(out)["url"]) == (0, "https://127.0.0.1:8443")
    assert json.loads(paroma_run("hub", "invite", "--folder", folder, "--json")[1])["invitation"].startswith(
        "paroma-join:"
    )
    found = json.loads(paroma_run("hub", "enrol-link", "Ada", "--folder", folder, "--json")[1])
    assert (found["line"][:13], found["role"]) == ("paroma-login:", "scientist")


def test_the_doctor_lists_the_walls(paroma_run):
    status, out, _ = paroma_run("site", "doctor", "--json")
    found = json.loads(out)
    assert {wall["name"] for wall in found["walls"]} >= {"seccomp", "landlock"}
    assert status == (0 if found["sound"] else 1)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (None, None),
        ("split=1", Marked(feature="split", value=1.0)),
        ("age,sex@heart:0:0.667", Drawn(over=("age", "sex"), salt="heart", low=0.0, high=0.667)),
    ],
)
def test_rows_are_named_in_one_word(text, rows):
    assert selection(text) == rows


@pytest.mark.parametrize("text", ["age", "age=x", "age@salt:0", "age@0:a:b"])
def test_unclear_rows_are_refused(text):
    with pytest.raises(BadInput, match="rows cannot be read"):
        selection(text)


def best(*arguments):
    def once():
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - begun

    return min(once() for _ in range(5))


def test_help_is_there_within_six_times_bare_python():
    assert best("-c", "from paroma.cli import main; import sys; sys.argv = ['paroma', '--help']; main()") <= 6 * best(
        "-c", "pass"
    )


def test_help_loads_no_group():
    code = "import sys; from paroma.cli import start; start.help_text(); print('typer' in sys.modules, 'msgspec' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["False", "False"]
