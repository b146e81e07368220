"""`paroma audit`: check the federation log without believing whoever keeps it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json, ProfileName
from paroma.kernel import canonical
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput
from paroma.sdk import profile as profiles
from paroma.sdk.connection import LogKeys, connect
from paroma.trust.audit import checkpoint as checkpoints
from paroma.trust.audit.checkpoint import Checkpoint
from paroma.trust.audit.notes import NoteKey
from paroma.trust.audit.tiles import CHECKPOINT, TileReader, needed
from paroma.trust.audit.verify import Expectations, Report, folder_reader, verify as verify_log

APP = show.app("Check a log from its first byte, or take a copy along.")
KEYS = "keys.json"
SEEN = "log-checkpoint"  # what this profile saw last: the log must continue it


@APP.command()
def verify(
    folder: Annotated[Path | None, typer.Option(help="A copy made by `export`, instead of the hub.")] = None,
    log_key: Annotated[
        str | None, typer.Option("--log-key", help="The log's key as you know it, instead of the one that comes along.")
    ] = None,
    cosigned: Annotated[
        int | None, typer.Option(min=0, help="Cosignatures that must be there; a quorum if not given.")
    ] = None,
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Check every byte of the federation log, and say what that proves and what not. Exit 1 if it does not hold."""
    if folder is not None:
        report = _check(folder_reader(folder), _keys(folder), log_key, cosigned, ())
        source = "came along with the copy"
    else:
        where = profiles.folder(os.environ, profile)
        with connect(profile) as here:
            keys = here.log_keys()
            remembered = _remembered(where / SEEN, log_key or keys.vkey)
            read = _cached(here.log_file)
            report = _check(read, keys, log_key, cosigned, remembered)
        SystemDisk().replace(where / SEEN, read(CHECKPOINT), mode=0o600)
        source = "are the hub's own word"
    doubt = "" if log_key else f" The keys {source}: give the one you know with --log-key."
    value = {
        "holds": report.holds,
        "origin": report.origin,
        "entries": report.size,
        "root": report.root.hex(),
        "cosigned_by": report.cosigned_by,
        "findings": report.findings,
        "proves": report.proved,
        "does_not_prove": [*report.not_proved, *(["that these are the right keys: they " + source] if doubt else [])],
        "sentence": report.sentence + doubt,
    }
    show.done(value, f"{'holds' if report.holds else 'DOES NOT HOLD'}\n{report.sentence}{doubt}", json=json)
    if not report.holds:
        raise typer.Exit(1)


@APP.command()
def export(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Copy the federation log with its keys into a folder that `verify --folder` checks without any network."""
    disk = SystemDisk()
    with connect(profile) as here:
        keys, head = here.log_keys(), here.log_file(CHECKPOINT)
        size = checkpoints.read(head.decode(), NoteKey.parse(keys.vkey)).size
        paths = [where.path for where in needed(0, size)]
        for at, path in enumerate(paths, 1):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(target, here.log_file(path), mode=0o644)
            if at % 100 == 0:
                show.say(f"{at} of {len(paths)} files")
    folder.mkdir(parents=True, exist_ok=True)
    disk.replace(folder / KEYS, canonical.encode(keys) + b"\n", mode=0o644)
    disk.replace(folder / CHECKPOINT, head, mode=0o644)  # last: a copy with a head is whole
    text = f"{size} entries lie in {folder}\n  next: paroma audit verify --folder {folder}"
    show.done({"folder": str(folder), "entries": size, "files": len(paths) + 2}, text, json=json)


def _check(
    read: TileReader, keys: LogKeys, log_key: str | None, cosigned: int | None, remembered: tuple[Checkpoint, ...]
) -> Report:
    witnesses = {keys.titles.get(site, site): NoteKey.parse(vkey) for site, vkey in keys.witnesses.items()}
    return verify_log(
        read,
        keys.origin,
        log_key or keys.vkey,
        witnesses,
        keys.quorum if cosigned is None else cosigned,
        expectations=Expectations(remembered=remembered),
    )


def _keys(folder: Path) -> LogKeys:
    try:
        return canonical.decode_as((folder / KEYS).read_bytes(), LogKeys)
    except FileNotFoundError:
        raise BadInput(
            f"there is no `{KEYS}` in `{folder}`", do="name a folder that `paroma audit export` made"
        ) from None


def _remembered(file: Path, vkey: str) -> tuple[Checkpoint, ...]:
    try:
        return (checkpoints.read(file.read_bytes().decode(), NoteKey.parse(vkey)),)
    except FileNotFoundError:
        return ()


def _cached(fetch: Callable[[str], bytes]) -> TileReader:
    """Each file is fetched once: every check walks the log anew, and must walk the same one."""
    held: dict[str, bytes] = {}

    def read(path: str) -> bytes:
        if path not in held:
            held[path] = fetch(path)
        return held[path]

    return read
