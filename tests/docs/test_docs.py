"""The documents say what the programs do: commands, links, rooms, functions, and the reference made from the code."""

import ast
import hashlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from paroma.bench import benches

REFERENCE = ("settings", "routes", "log-entries", "policies", "coverage", "messages", "commands", "errors")


@pytest.mark.parametrize("page", REFERENCE)
def test_the_reference_is_what_the_code_says(generate, root, page):
    committed = (root / "docs" / "reference" / f"{page}.md").read_text()
    assert committed == generate.made(page), "run `python docs/reference/generate.py`"


def test_every_page_of_the_reference_is_made_but_what_was_measured(generate, root):
    pages = {p.stem for p in (root / "docs" / "reference").glob("*.md")}
    assert set(generate.MAKERS) == set(REFERENCE) == pages - {"figures"}


def test_every_bench_is_described_among_the_figures_and_no_other(root):
    described = re.findall(
        r"^\*\*`([a-z]+)`\*\*", (root / "docs" / "reference" / "figures.md").read_text(), re.MULTILINE
    )
    assert set(described) == set(benches.NAMES)


def test_the_readme_has_at_most_60_lines(root):
    assert len((root / "README.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial/first-study.md", *(f"docs/howto/{n}.md" for n in ("run-a-hub", "join-a-site", "house-rules", "say-no-at-the-desk", "check-the-log"))])  # fmt: skip
def test_every_command_in_the_documents_exists_with_its_options(help_text, root, commands_in, name):
    found = list(commands_in((root / name).read_text()))
    assert found
    for command in found:
        words = shlex.split(command.rstrip("&").strip())
        names = [word for word in words[:3] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        places = [f"\n{'#' * (n + 1)} paroma {' '.join(names[:n])}\n" for n in range(len(names), 0, -1)]
        wanted = next((place for place in places if place in help_text), "# Commands\n" if not names else "")
        assert wanted, f"`paroma {command}`: no such command"
        body = help_text.split(wanted, 1)[1].split("```", 2)[1]
        assert places[:1] in ([], [wanted]) or "COMMAND" not in body, f"`paroma {command}`: no such command"
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", body), f"`paroma {command}`: no option `{option}`"


def test_every_make_target_that_is_named_exists(root, pages):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for path, text in pages:
        for target in re.findall(r"`make ([a-z]+)|^    make ([a-z]+)", text, re.MULTILINE):
            assert "".join(target) in targets, f"{path.name} names `make {''.join(target)}`"


def test_every_link_between_documents_leads_somewhere(pages):
    for path, text in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http://", "https://", "#", "mailto:")):
                assert (path.parent / target.partition("#")[0]).exists(), f"{path}: `{target}`"


def test_no_document_names_this_machine(pages):
    for path, text in pages:
        assert not re.search(r"/(work|home|tmp|root)/", text), path


# -- architecture


def layers(contract):
    rooms = [re.sub(r"[()]", "", one).replace(" | ", "` and `") for one in contract["layers"]]
    return f"| `{contract['containers'][0]}` | {' > '.join(f'`{room}`' for room in rooms)} |"


def test_the_arrows_in_the_architecture_are_those_of_the_contracts(root):
    text = (root / "docs" / "architecture.md").read_text()
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers":
            assert layers(contract) in text


def test_the_architecture_names_every_room_and_no_other(root):
    text = (root / "docs" / "architecture.md").read_text().split("## The arrows")[0]
    source = root / "src" / "paroma"
    wings = ("kernel", "trust", "data", "learn", "web")
    named = set(re.findall(r"`((?:kernel|trust|data|learn|web)/[a-z]+)`", text))
    named |= {
        "kernel/" + one
        for one in re.findall(r"`([a-z]+)`(?:,| \|)", text)
        if (source / "kernel" / f"{one}.py").exists()
    }
    there = {
        f"{wing}/{path.stem}"
        for wing in wings
        for path in (source / wing).iterdir()
        if (path.is_dir() and any(path.glob("*.py")))
        or (wing == "kernel" and path.suffix == ".py" and path.stem != "__init__")
    }
    assert there == named
    for program in ("hub", "site", "sdk", "lab", "cli"):
        assert f"| `{program}` |" in text
        assert (source / program).is_dir()


# -- the life of a round


def names_in(file):
    out = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            out.add(node.name)
            out |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            out.add(node.name)
    return out


def test_every_function_in_the_life_of_a_round_exists(root):
    source = root / "src" / "paroma"
    text = (root / "docs" / "life-of-a-round.md").read_text()
    everything = {file: names_in(file) for file in source.rglob("*.py")}
    for code in set(re.findall(r"`([^`]+)`", text)):
        if match := re.fullmatch(r"((?:[a-z_]+/)+[a-z_]+)\.([A-Za-z_.]+)", code):
            where = [known for file, known in everything.items() if file.as_posix().endswith(f"/{match.group(1)}.py")]
            assert any(match.group(2) in known for known in where), code
        elif match := re.fullmatch(r"([a-z_]+)\.(_?[a-z_]+)", code):
            where = [known for file, known in everything.items() if file.stem == match.group(1)]
            assert any(match.group(2) in known for known in where), code
        elif re.fullmatch(r"_?[A-Za-z]+(?:\.[A-Za-z_]+)?", code) and code not in {"hub_held", "tau"}:
            assert any(one == code or one.endswith(f".{code}") for known in everything.values() for one in known) or code in {
                "suspected", "keep", "question-answered",
            }, code  # fmt: skip


# -- the rest


def test_the_licence_is_apache_2(root):
    text = (root / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_the_documentation_builds_without_a_warning(root, tmp_path):
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", root / "docs", tmp_path / "out", "-d", tmp_path / "trees"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
