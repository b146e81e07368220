"""Flower App Bundles: read strictly, made from a folder, named by their digest. Imports no flwr, so that a program may.

A bundle is a zip with `pyproject.toml`, sources and texts, and `.info/CONTENT`: a line `path,sha256,bits` for each
file. Flower's own reader checks that what is listed is there; this one also refuses what is there and not listed. A
permit names the digest. Source: `flwr/cli/build.py` and `flwr/cli/install.py` of flwr 1.42, which accepts what `build`
makes (a test shows it).
"""

import fnmatch
import hashlib
import io
import re
import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paroma.kernel.errors import BadInput
from paroma.learn.flower.messages import Scalar

MOST_BYTES: Final = 10 << 20  # of the bundle; Flower's own limit
MOST_UNPACKED: Final = 40 << 20  # bytes
MOST_FILES: Final = 1000
_CONTENT: Final = ".info/CONTENT"
_PROJECT: Final = "pyproject.toml"
_SUFFIXES: Final = frozenset({".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"})  # nothing native, no .pth
_LICENCE: Final = "LICENSE"
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,15}")
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DATE: Final = (2024, 10, 1, 0, 0, 0)  # the same bytes from the same files, whenever they are bundled
_LEFT_OUT: Final = ("build", "eggs", "lib", "lib64", "parts", "dist", "__pycache__", "venv", "env")


class FabInvalid(BadInput):
    """A bundle that is not what Flower's format allows."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the Flower bundle cannot be used: {why}", do="bundle the app again with `flwr build`, or give its folder"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fab:
    """A bundle that has been read and checked."""

    id: str  # SHA-256 of the bundle, hex: what a permit names
    publisher: str
    name: str
    version: str
    clientapp: str  # module:attribute
    serverapp: str
    config: Mapping[str, Scalar]  # the app's own run config, nested keys joined by dots
    files: Mapping[str, bytes]  # without .info


def digest(data: bytes) -> str:
    """The id of a bundle."""
    return hashlib.sha256(data).hexdigest()


def read(data: bytes) -> Fab:
    """Check a bundle and read it into memory. Raises FabInvalid."""
    if len(data) > MOST_BYTES:
        raise FabInvalid(f"it is larger than {MOST_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = dict(_members(archive))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        OverflowError,
        OSError,
    ) as problem:
        raise FabInvalid("it is not a readable zip file") from problem
    _compare(files, files.pop(_CONTENT, None))
    return _described(digest(data), files)


def build(folder: Path) -> bytes:
    """Bundle the app in a folder; the same files give the same bytes. Raises FabInvalid.

    Left out are hidden files, tests, environments and what `.gitignore` names (more than it names, never less), and the
    addresses under `[tool.flwr.federations]`. An app that chooses its files by `fab-include` or `fab-exclude` is
    bundled by `flwr build`.
    """
    ignored = _ignored(folder)
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = inside.as_posix()
        if any(part.startswith(".") or part in _LEFT_OUT or part.endswith(".egg-info") for part in inside.parts):
            continue
        if (
            path.is_symlink()
            or not path.is_file()
            or name == _PROJECT
            or not _belongs(name)
            or any(_matches(inside, p) for p in ignored)
        ):
            continue
        if path.stem.startswith("test_") or path.name.endswith("_test.py"):
            continue
        files[name] = path.read_bytes()
    try:
        project = (folder / _PROJECT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise FabInvalid(f"`{_PROJECT}` cannot be read in `{folder.name}`") from problem
    files = {_PROJECT: _without_federations(project).encode(), **files}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(_info(name), content)
        archive.writestr(_info(_CONTENT), "\n".join(f"{n},{digest(c)},{len(c) * 8}" for n, c in files.items()))
    data = out.getvalue()
    read(data)
    return data


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _belongs(name: str) -> bool:
    return name == _LICENCE or Path(name).suffix in _SUFFIXES


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Names and contents. Every limit is checked on the directory before anything is unpacked, and again while
    unpacking.
    """
    members = archive.infolist()
    if len(members) > MOST_FILES:
        raise FabInvalid(f"it holds more than {MOST_FILES} files")
    if sum(m.file_size for m in members) > MOST_UNPACKED:
        raise FabInvalid(f"it unpacks to more than {MOST_UNPACKED} bytes")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if name != _CONTENT and not (_PATH.fullmatch(name) and _belongs(name)):
            raise FabInvalid("it holds a file with a name or of a kind that is not allowed")
        if name.lower() in seen:
            raise FabInvalid(f"it holds `{name}` twice")
        seen.add(name.lower())
        if (
            member.flag_bits & 1
            or member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
            or (member.external_attr >> 16) & 0o170000 not in {0, 0o100000}
        ):
            raise FabInvalid(f"`{name}` is encrypted, a link, or compressed in an unusual way")
        with archive.open(member) as stream:
            content = stream.read(member.file_size + 1)
        if len(content) != member.file_size:
            raise FabInvalid(f"`{name}` is not as long as the directory says")
        yield name, content


def _compare(files: Mapping[str, bytes], content: bytes | None) -> None:
    if content is None:
        raise FabInvalid("its list of hashes is missing")
    listed: dict[str, tuple[str, str]] = {}
    try:
        lines = content.decode("utf-8").strip().split("\n")
    except UnicodeDecodeError as problem:
        raise FabInvalid("its list of hashes is not text") from problem
    for line in lines:
        name, _, rest = line.partition(",")
        sha, _, bits = rest.partition(",")
        if name in listed:
            raise FabInvalid("its list of hashes names a file twice")
        listed[name] = (sha, bits)
    if listed != {name: (digest(data), str(len(data) * 8)) for name, data in files.items()}:
        raise FabInvalid("its files are not those of its list of hashes")


def _described(identity: str, files: Mapping[str, bytes]) -> Fab:
    try:
        project = tomllib.loads(files[_PROJECT].decode("utf-8"))
        app = project["tool"]["flwr"]["app"]
        components = app["components"]
        names = (app["publisher"], project["project"]["name"], project["project"]["version"])
        references = (components["clientapp"], components["serverapp"])
        config = dict(_flat(app.get("config", {}), ""))
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise FabInvalid(f"`{_PROJECT}` lacks a name, a version, a publisher or the two components") from problem
    if not all(isinstance(n, str) and _NAME.fullmatch(n) for n in names):
        raise FabInvalid("its publisher, name or version has characters that are not allowed")
    for reference in references:
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            raise FabInvalid("a component is not written as `module:attribute`")
        module = reference.partition(":")[0].replace(".", "/")
        if f"{module}.py" not in files and f"{module}/__init__.py" not in files:
            raise FabInvalid(f"the module of `{reference}` is not in it")
    publisher, name, version = names
    clientapp, serverapp = references
    return Fab(
        id=identity,
        publisher=publisher,
        name=name,
        version=version,
        clientapp=clientapp,
        serverapp=serverapp,
        config=config,
        files=files,
    )


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Scalar]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value
        else:
            raise FabInvalid(f"the run config `{prefix}{key}` is not a number, a text or a yes or no")


def _ignored(folder: Path) -> list[str]:
    try:
        lines = (folder / ".gitignore").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [stripped.strip("/") for line in lines if (stripped := line.strip()) and stripped[0] not in "#!"]


def _matches(path: Path, pattern: str) -> bool:
    whole = path.as_posix()
    return (
        any(fnmatch.fnmatch(part, pattern) for part in path.parts)
        or fnmatch.fnmatch(whole, pattern)
        or fnmatch.fnmatch(whole, pattern + "/*")
    )


def _without_federations(project: str) -> str:
    """The same text without the tables `[tool.flwr.federations...]`: addresses are nobody's business but the
    author's.
    """
    try:
        before = tomllib.loads(project)
        flower = before["tool"]["flwr"]
        if {"fab-include", "fab-exclude"} & set(flower["app"]):
            raise FabInvalid("it chooses its files by `fab-include` or `fab-exclude`")
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as problem:
        raise FabInvalid(f"`{_PROJECT}` has no readable table `[tool.flwr.app]`") from problem
    if "federations" not in flower:
        return project
    kept, dropping = [], False
    for line in project.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            dropping = re.match(r"\s*\[+\s*tool\s*\.\s*flwr\s*\.\s*federations\b", line) is not None
        if not dropping:
            kept.append(line)
    after = "".join(kept)
    del flower["federations"]
    if tomllib.loads(after) != before:
        raise FabInvalid("`[tool.flwr.federations]` cannot be taken out; write it as a table of its own")
    return after
