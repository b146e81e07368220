"""Bundles: ours are Flower's, and what is not exactly a bundle is refused."""

import hashlib
import io
import warnings
import zipfile

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab
from hypothesis import given, settings, strategies as st

from paroma.learn.flower import fab
from paroma.learn.flower.fab import FabInvalid

PROJECT = b'[project]\nname = "a"\nversion = "1"\n[tool.flwr.app]\npublisher = "p"\n[tool.flwr.app.components]\nserverapp = "a:s"\nclientapp = "a:c"\n'


def bundled(files, *, content=None, compress=zipfile.ZIP_DEFLATED, extra=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        lines = "\n".join(f"{n},{hashlib.sha256(d).hexdigest()},{len(d) * 8}" for n, d in files.items())
        archive.writestr(".info/CONTENT", lines if content is None else content)
        for name, data in extra:
            archive.writestr(name, data)
    return out.getvalue()


GOOD = {"pyproject.toml": PROJECT, "a.py": b"s = c = 1\n"}


def test_a_good_bundle_is_read():
    read = fab.read(bundled(GOOD))
    assert (read.publisher, read.name, read.version, read.clientapp) == ("p", "a", "1", "a:c")
    assert read.files == GOOD
    assert read.id == hashlib.sha256(bundled(GOOD)).hexdigest()


def test_what_flower_builds_is_read(app_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pathspec, about flwr
        theirs = build_fab_from_disk(app_folder)
    read = fab.read(theirs)
    ours = fab.read(fab.build(app_folder))
    assert set(read.files) == set(ours.files)
    assert {n: d for n, d in read.files.items() if n != "pyproject.toml"} == {
        n: d for n, d in ours.files.items() if n != "pyproject.toml"
    }
    assert (
        read.config
        == ours.config
        == {"num-server-rounds": 3, "learning-rate": 0.1, "local-epochs": 5, "num-features": 5}
    )


def test_what_we_build_is_installed_by_flower(app_folder, tmp_path):
    installed = install_from_fab(fab.build(app_folder), tmp_path, skip_prompt=True)
    assert (installed / "heartapp" / "client_app.py").read_bytes() == (
        app_folder / "heartapp" / "client_app.py"
    ).read_bytes()


def test_the_same_folder_gives_the_same_bytes_and_no_addresses(app_folder):
    assert fab.build(app_folder) == fab.build(app_folder)
    assert b"federations" not in fab.read(fab.build(app_folder)).files["pyproject.toml"]


def test_a_folder_is_bundled_without_what_is_private(tmp_path):
    for name, data in {
        **GOOD,
        ".env.json": b"{}",
        "secret.json": b"{}",
        "test_a.py": b"",
        "data.csv": b"1",
        "build/b.py": b"",
        "sub/kept.py": b"",
        "sub/keys.toml": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / ".gitignore").write_text("# mine\nsecret.json\nsub/keys.toml\n")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    assert set(fab.read(fab.build(tmp_path)).files) == {"pyproject.toml", "a.py", "sub/kept.py"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not a zip", id="not a zip"),
        pytest.param(bundled(GOOD)[:-30], id="truncated"),
        pytest.param(bytes(fab.MOST_BYTES + 1), id="too large"),
        pytest.param(bundled({**GOOD, "big.py": bytes(fab.MOST_UNPACKED + 1)}), id="a bomb"),
        pytest.param(bundled({**GOOD, **{f"f{n}.py": b"" for n in range(fab.MOST_FILES)}}), id="too many files"),
        pytest.param(bundled({**GOOD, "../out.py": b""}), id="out of the folder"),
        pytest.param(bundled({**GOOD, "/abs.py": b""}), id="absolute"),
        pytest.param(bundled({**GOOD, "a/../../b.py": b""}), id="out in the middle"),
        pytest.param(bundled({**GOOD, "a\\b.py": b""}), id="a backslash"),
        pytest.param(bundled({**GOOD, ".hidden.py": b""}), id="hidden"),
        pytest.param(bundled({**GOOD, "n.so": b"\x7fELF"}), id="native code"),
        pytest.param(bundled({**GOOD, "x.pth": b"import os"}), id="an import hook"),
        pytest.param(bundled({**GOOD, "sub/": b""}), id="a folder as a file"),
        pytest.param(bundled({**GOOD, "A.py": b""}), id="the same name in another case"),
        pytest.param(bundled(GOOD, extra=[("more.py", b"")]), id="a file that is not listed"),
        pytest.param(bundled(GOOD, content=""), id="an empty list"),
        pytest.param(bundled(GOOD, content="pyproject.toml,00,8\na.py,00,8"), id="other hashes"),
        pytest.param(bundled(GOOD, content=b"\xff"), id="a list that is not text"),
        pytest.param(bundled(GOOD, compress=zipfile.ZIP_BZIP2), id="an unusual compression"),
        pytest.param(bundled({"a.py": b""}), id="no project"),
        pytest.param(bundled({**GOOD, "pyproject.toml": b"= 1"}), id="a project that is not toml"),
        pytest.param(
            bundled({**GOOD, "pyproject.toml": PROJECT.replace(b"a:c", b"os:system")}),
            id="a component outside the bundle",
        ),
        pytest.param(
            bundled({**GOOD, "pyproject.toml": PROJECT.replace(b'"a:c"', b"3")}), id="a component that is a number"
        ),
        pytest.param(
            bundled({**GOOD, "pyproject.toml": PROJECT.replace(b'"p"', b'"../p"')}), id="a publisher with a path"
        ),
        pytest.param(
            bundled({**GOOD, "pyproject.toml": PROJECT + b"[tool.flwr.app.config]\nd = 2024-01-01\n"}),
            id="a date in the config",
        ),
    ],
)
def test_what_is_not_exactly_a_bundle_is_refused(data):
    with pytest.raises(FabInvalid):
        fab.read(data)


def test_a_bundle_with_a_file_twice_is_refused():
    out = io.BytesIO(bundled(GOOD))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr("a.py", b"other")
    with pytest.raises(FabInvalid):
        fab.read(out.getvalue())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(bundled(GOOD)) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_the_id_and_never_the_files_unnoticed(at, by):
    data = bytearray(bundled(GOOD))
    data[at] = (data[at] + by) % 256
    try:
        read = fab.read(bytes(data))
    except FabInvalid:
        return
    assert read.id != fab.read(bundled(GOOD)).id
    assert read.files == GOOD
