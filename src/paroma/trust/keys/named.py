"""Open, make or end a key by its name, wherever it lives: the one door to files, TPMs, PKCS#11 tokens and key services."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paroma.kernel.disk import Disk
from paroma.kernel.randomness import Randomness
from paroma.trust.keys import files
from paroma.trust.keys.errors import KeyGone, KeyThere
from paroma.trust.keys.names import KeyName, parse
from paroma.trust.keys.signing import HeldKey, PublicKey, SigningKey
from paroma.trust.keys.wrapping import FileWrappingKey, OwnedKey, WrappingKey, overwrite


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a home of keys can promise. Sentences, for `paroma key show` and the documentation."""

    leaves: str  # can the key be copied out?
    destroyed: str  # what destroying it does
    stolen: str  # what a thief of the machine's disk has


PROMISES: Final = {
    "file": Promise(
        leaves="yes: who reads the file has the key",
        destroyed="overwritten and removed; flash storage and backups may keep the old bytes",
        stolen="the key",
    ),
    "tpm": Promise(
        leaves="no: the TPM made it and holds it",
        destroyed="at once and for good: the TPM held the only copy",
        stolen="nothing without this machine's TPM and the PIN",
    ),
    "pkcs11": Promise(
        leaves="no: made as sensitive and not extractable; the token's maker answers for it",
        destroyed="at once; for good where the token makes no backups (SoftHSM is files: as a file)",
        stolen="nothing without the token and the PIN (SoftHSM is files under the PIN)",
    ),
    "awskms": Promise(
        leaves="no: the service's operator holds it",
        destroyed="unusable at once, for good after 7 days; until then the service's operator can call it back",
        stolen="nothing but the service's credentials, if they lie on it: revoke them there",
    ),
}


class FileSigningKey:
    """An ES256 key in a file, with its name."""

    def __init__(self, path: Path, key: HeldKey, disk: Disk) -> None:
        self.uri, self._path, self._key, self._disk = f"file:{path}", path, key, disk

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._key.public

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half."""
        return self._key.thumbprint

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return self._key.public_jwk

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`, deterministic."""
        return self._key.sign(data)

    def destroy(self) -> None:
        """Overwrite the file in place, then remove it; flash storage may keep the old bytes until it reuses them."""
        overwrite(self._path, self._disk)

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Homes:
    """What opening a key takes: where PINs in variables are looked up, a disk, randomness."""

    environ: Mapping[str, str]
    disk: Disk
    randomness: Randomness

    @classmethod
    def of_this_machine(cls, disk: Disk, randomness: Randomness) -> "Homes":
        """With this process's environment."""
        return cls(environ=os.environ, disk=disk, randomness=randomness)

    def signing(self, uri: str) -> OwnedKey:
        """The ES256 key of this name.

        Raises KeyUriInvalid, KeyLibraryMissing, KeyPinWrong, KeyAway, KeyGone, KeyUnfit, KeyFileUnsafe, KeyFileUnreadable.
        """
        return self._signing(parse(uri), make=False)

    def make_signing(self, uri: str) -> OwnedKey:
        """A new ES256 key, made where it will live. Raises KeyThere, and as `signing`."""
        return self._signing(parse(uri), make=True)

    def signing_or_new(self, uri: str) -> OwnedKey:
        """The ES256 key of this name; made first where there is none. Raises as `signing`."""
        try:
            return self.signing(uri)
        except KeyGone:
            return self.make_signing(uri)

    def wrapping(self, uri: str) -> WrappingKey:
        """The wrapping key of this name. Raises as `signing`."""
        return self._wrapping(parse(uri), make=False)

    def make_wrapping(self, uri: str) -> WrappingKey:
        """A new wrapping key, made where it will live. Raises KeyThere, and as `signing`."""
        return self._wrapping(parse(uri), make=True)

    def _signing(self, name: KeyName, *, make: bool) -> OwnedKey:
        if name.scheme == "tpm":
            from paroma.trust.keys.tpm import TpmSigningKey

            return TpmSigningKey(name, self.environ, make=make)
        if name.scheme == "pkcs11":
            from paroma.trust.keys.token import TokenSigningKey

            return TokenSigningKey(name, self.environ, make=make)
        if name.scheme == "awskms":
            from paroma.trust.keys.kms import KmsSigningKey

            return KmsSigningKey(name, make=make)
        path = self._file(name, make=make)
        key = files.load_or_create(path, self.disk, self.randomness) if make else files.load(path)
        return FileSigningKey(path, key, self.disk)

    def _wrapping(self, name: KeyName, *, make: bool) -> WrappingKey:
        if name.scheme == "tpm":
            from paroma.trust.keys.tpm import TpmWrappingKey

            return TpmWrappingKey(name, self.environ, self.randomness, make=make)
        if name.scheme == "pkcs11":
            from paroma.trust.keys.token import TokenWrappingKey

            return TokenWrappingKey(name, self.environ, self.randomness, make=make)
        if name.scheme == "awskms":
            from paroma.trust.keys.kms import KmsWrappingKey

            return KmsWrappingKey(name, make=make)
        path = self._file(name, make=make)
        if make:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.disk.replace(path, self.randomness.take(32))
        return FileWrappingKey(path, files.read(path), self.disk, self.randomness)

    def _file(self, name: KeyName, *, make: bool) -> Path:
        path = Path(name.path)
        there = path.is_symlink() or path.exists()
        if make and there:
            raise KeyThere(f"there is a file `{path}` already", do="choose another path")
        if not make and not there:
            raise KeyGone(
                f"there is no key file `{path}`: it was destroyed, moved or never made",
                do="correct the path, bring the file back, or make a key with `paroma key make`",
            )
        return path


def of_program(uri: str, file: Path, homes: Homes) -> SigningKey:
    """The key that a program signs with: the one named, which must be there, or else the one in `file`, made if need be.

    Raises as `Homes.signing`.
    """
    return homes.signing(uri) if uri else files.load_or_create(file, homes.disk, homes.randomness)
