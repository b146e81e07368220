"""Durable writes as a parameter, so that each can be made to fail in both of its ways.

A write can fail and leave nothing, or fail and leave what it wrote: whoever calls must be right in both cases.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """Where bytes become durable."""

    def commit(self, commit: Callable[[], None]) -> None:
        """Make a transaction of the store durable by calling `commit`."""

    def replace(self, path: Path, content: bytes, *, mode: int = 0o600) -> None:
        """`path` holds `content`, and nothing else at any instant: the old bytes or the new. Raises OSError."""

    def remove(self, path: Path) -> None:
        """`path` is gone, durably. No error where it was not there. Raises OSError."""

    def write_at(self, path: Path, offset: int, content: bytes) -> None:
        """`content` stands in `path` from byte `offset` on; not durable before `settle`. Raises OSError."""

    def settle(self, part: Path, whole: Path) -> None:
        """What was written into `part` is durable under the name `whole`, and `part` is gone. Raises OSError."""


class SystemDisk:
    """The disk of the machine."""

    def commit(self, commit: Callable[[], None]) -> None:
        """Call `commit`."""
        commit()

    def replace(self, path: Path, content: bytes, *, mode: int = 0o600) -> None:
        """Write beside, make durable, rename, make the rename durable."""
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)  # one left by an interrupted write may have another mode, or be open elsewhere
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            _write_all(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(path)
        _sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Unlink, and make that durable."""
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def write_at(self, path: Path, offset: int, content: bytes) -> None:
        """Write in place; the file is made, readable by its owner only, where it was not there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, content, offset)
        finally:
            os.close(descriptor)

    def settle(self, part: Path, whole: Path) -> None:
        """Make the content durable, rename, make the rename durable."""
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(whole)
        _sync_folder(whole.parent)


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)  # a rename lives in its directory: without this a power cut can bring the old file back
    finally:
        os.close(descriptor)
