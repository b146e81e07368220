"""Where an upload gathers, piece by piece, until it is whole.

An upload is named by the SHA-256 of all its bytes, so a repeated piece, a piece out of order and a sender that begins
anew change nothing: the answer to every piece is the offset of the next byte that is wanted. A piece is not durable;
the whole is, before `finish` returns. After a power cut the part may hold anything: its hash says so, and it is begun
again.
"""

import hashlib
from pathlib import Path
from typing import Final

from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput
from paroma.kernel.wire.framing import Chunk

_BLOCK: Final = 1 << 20


class UploadDamaged(BadInput):
    """The gathered bytes are not those that the upload is named by. They were thrown away."""


class Spool:
    """Uploads in one folder. One caller at a time for one upload."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._disk = disk

    def wanted(self, whole: bytes) -> int:
        """The offset in bytes from which on the upload named `whole` is still missing."""
        for path in (self._whole(whole), self._part(whole)):
            if path.exists():
                return path.stat().st_size
        return 0

    def take(self, chunk: Chunk) -> int:
        """Keep what is new in `chunk`; the offset of the next byte wanted. A piece that leaves a gap is not kept."""
        wanted = self.wanted(chunk.whole)
        if chunk.offset <= wanted < chunk.end and not self._whole(chunk.whole).exists():
            self._disk.write_at(self._part(chunk.whole), wanted, chunk.content[wanted - chunk.offset :])
            return chunk.end
        return wanted

    def finish(self, whole: bytes, total: int) -> Path:
        """The file with all `total` bytes of the upload, durable. Safe to repeat. Raises UploadDamaged, OSError."""
        path, part = self._whole(whole), self._part(whole)
        if path.exists():
            return path
        if total == 0 and not part.exists():
            self._disk.write_at(part, 0, b"")
        if not part.exists() or part.stat().st_size != total or _digest(part) != whole:
            self._disk.remove(part)
            raise UploadDamaged(
                "the upload does not have the bytes that it is named by", do="send it again from offset 0"
            )
        self._disk.settle(part, path)
        return path

    def remove(self, whole: bytes) -> None:
        """Forget the upload, durably, whole or in part."""
        self._disk.remove(self._part(whole))
        self._disk.remove(self._whole(whole))

    def _whole(self, whole: bytes) -> Path:
        return self._folder / whole.hex()

    def _part(self, whole: bytes) -> Path:
        return self._folder / f"{whole.hex()}.part"


def _digest(path: Path) -> bytes:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.digest()
