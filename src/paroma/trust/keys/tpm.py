"""Keys in a TPM 2.0, at persistent handles, through the system's `tpm2-tools`: each act is one short program.

Signing is TPM2_Sign with ECDSA on P-256. Wrapping is ECDH with a key of the TPM's (SP 800-56A, C(1e, 1s)): the secret is sealed
under HKDF of a shared point, which takes the public half to make and the TPM to make again. A key's sealed private part exists
outside the TPM while it is made only, in memory, so that evicting the key destroys it.
Why programs and not a library: `tpm2-pytss` has no wheel and wants a compiler at every installation.
"""

import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paroma.kernel.errors import ParomaError
from paroma.kernel.randomness import Randomness
from paroma.trust.keys.errors import (
    KeyAway,
    KeyGone,
    KeyLibraryMissing,
    KeyPinWrong,
    KeyThere,
    KeyUnfit,
    NotWrappedByThis,
)
from paroma.trust.keys.names import KeyName, pin_of
from paroma.trust.keys.signing import HeldKey, KeyInvalid, PublicKey, digest, raw
from paroma.trust.keys.wrapping import fit, seal, unseal

SECONDS: Final = 10.0
POINT: Final = 65
_ONE_AT_A_TIME: Final = (
    threading.Lock()
)  # a TPM without a resource manager has few places; between processes only a resource manager helps
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a folder of our own is made in it, mode 700
_STAYS: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth"
_SIGN, _WRAP = (("ecc256:ecdsa-sha256", f"{_STAYS}|sign"), ("ecc256:ecdh", f"{_STAYS}|decrypt"))
_CODE: Final = re.compile(r"\(0x([0-9A-Fa-f]{1,8})\)")


class _Held:
    """One persistent handle of one TPM."""

    def __init__(self, name: KeyName, environ: Mapping[str, str], kind: tuple[str, str], *, make: bool) -> None:
        self.name, self._environ = name, environ
        self._pin = pin_of(name, environ)
        self._refused: str | None = None  # a PIN that is not tried again: a caller that repeats would lock the TPM
        self._tcti = f"device:{name.path}" if name.path.startswith("/") else name.path
        self.handle = f"{name.handle:#010x}"
        if make:
            self._make(*kind)
        self.public = self._read(kind[1].rpartition("|")[2])

    def run(self, line: str, *, folder: Path, pin: bool = False, flush: bool = False) -> str:
        """What the program printed. line: it and its words, none of which has a space. The PIN goes through its standard input.

        Raises KeyLibraryMissing, KeyAway, KeyGone, KeyPinWrong.
        """
        with _ONE_AT_A_TIME:
            if pin:
                self._pin = pin_of(self.name, self._environ)
                if self._pin is not None and self._pin == self._refused:
                    raise _pin_wrong()
            done = self._program(line, folder=folder, pin=pin)
            # A TPM without a resource manager has three places for passing objects and for sessions, and programs leave theirs.
            # Behind one (`/dev/tpmrm0`) there is nothing of ours to flush.
            if flush or pin:
                self._program("tpm2_flushcontext -t", folder=folder)
                self._program("tpm2_flushcontext -l", folder=folder)
        if done.returncode:
            trouble = self._trouble(done.stderr.decode("utf-8", "replace"))
            if pin and isinstance(trouble, KeyPinWrong):
                self._refused = self._pin
            raise trouble
        return done.stdout.decode("utf-8", "replace")

    def _program(self, line: str, *, folder: Path, pin: bool = False) -> "subprocess.CompletedProcess[bytes]":
        tool, *words = line.split()
        path = shutil.which(tool)
        if path is None:
            raise KeyLibraryMissing(f"`{tool}` is not on this machine", do="install the package `tpm2-tools`")
        auth = ["-p", "file:-"] if pin and self._pin is not None else []
        try:
            return subprocess.run(
                [path, *words, *auth],
                input=(self._pin or "").encode() if auth else b"",
                capture_output=True,
                timeout=SECONDS,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "TPM2TOOLS_TCTI": self._tcti, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired as problem:
            raise KeyAway(f"the TPM did not answer in {SECONDS:.0f} s", do="look at it with `tpm2_getcap`") from problem

    def destroy(self) -> None:
        """The handle is free again, and with it the only copy is gone."""
        with _Folder() as folder:
            self.run(f"tpm2_evictcontrol -Q -C o -c {self.handle}", folder=folder)

    def _make(self, kind: str, attributes: str) -> None:
        with _Folder() as folder:
            if self.handle in self.run("tpm2_getcap handles-persistent", folder=folder).lower().split():
                raise KeyThere(
                    f"the TPM holds something at the handle {self.handle} already",
                    do="choose another handle; `tpm2_getcap handles-persistent` lists those in use",
                )
            steps = (
                (False, "tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c p.ctx"),
                (True, f"tpm2_create -Q -C p.ctx -g sha256 -u pub -r priv -G {kind} -a {attributes}"),
                (False, "tpm2_load -Q -C p.ctx -u pub -r priv -c k.ctx"),
                (False, f"tpm2_evictcontrol -Q -C o -c k.ctx {self.handle}"),
            )
            for pin, line in steps:
                self.run(line, folder=folder, pin=pin, flush=True)

    def _read(self, use: str) -> PublicKey:
        with _Folder() as folder:
            told = self.run(f"tpm2_readpublic -c {self.handle}", folder=folder)
        attributes = re.search(r"^attributes:\n +value: (\S+)", told, re.MULTILINE)
        x, y = (re.search(rf"^{axis}: ([0-9a-f]{{1,64}})$", told, re.MULTILINE) for axis in "xy")
        curve = "NIST p256" in told
        if not (attributes and x and y and curve) or use not in attributes[1].split("|"):
            raise self._unfit(use)
        try:
            return PublicKey.from_point(b"\x04" + b"".join(bytes.fromhex(one[1].zfill(64)) for one in (x, y)))
        except KeyInvalid as problem:
            raise self._unfit(use) from problem

    def _unfit(self, use: str) -> KeyUnfit:
        what = "ES256 key" if use == "sign" else "P-256 key that wraps"
        return KeyUnfit(f"the TPM holds no {what} at {self.handle}", do="make one with `paroma key make`")

    def _trouble(self, said: str) -> ParomaError:
        codes = {int(code, 16) for code in _CODE.findall(said)}
        low = {code & 0x0BF if code & 0x80 else code for code in codes}  # without the number of parameter or session
        if low & {0x08E, 0x0A2}:  # TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH (TPM 2.0 Library, part 2, 6.6.3)
            return _pin_wrong()
        if 0x921 in codes:  # TPM_RC_LOCKOUT
            return KeyPinWrong(
                "the TPM is locked after too many wrong PINs", do="wait, or reset it: `tpm2_dictionarylockout -c`"
            )
        if low & {0x08B}:  # TPM_RC_HANDLE
            return KeyGone(
                f"the TPM holds no key at {self.handle}: it was destroyed or never made",
                do="name another handle, or make the key with `paroma key make`",
            )
        return KeyAway(
            f"the TPM `{self.name.path}` does not do it{': ' + hex(max(codes)) if codes else ''}",
            do="look whether it is there and this user may use it (group `tss`): `tpm2_getcap properties-fixed`",
        )


def _pin_wrong() -> KeyPinWrong:
    return KeyPinWrong(
        "the TPM refuses the PIN; a few more wrong ones lock it",
        do="correct what `pin-source` leads to before anything tries again; add it where the name has none",
    )


class _Folder:
    """A folder in memory where there is one, gone afterwards."""

    def __init__(self) -> None:
        self._made = TemporaryDirectory(prefix="paroma-tpm-", dir=_MEMORY if _MEMORY.is_dir() else None)

    def __enter__(self) -> Path:
        return Path(self._made.name)

    def __exit__(self, *_: object) -> None:
        self._made.cleanup()


class TpmSigningKey:
    """An ES256 key in a TPM."""

    def __init__(self, name: KeyName, environ: Mapping[str, str], *, make: bool = False) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit."""
        self._held, self.uri = _Held(name, environ, _SIGN, make=make), name.text
        self.public = self._held.public

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half."""
        return self.public.thumbprint

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return self.public.jwk

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`, r and s; its random number is the TPM's. Raises KeyAway, KeyGone, KeyPinWrong."""
        with _Folder() as folder:
            (folder / "digest").write_bytes(digest(data))
            line = f"tpm2_sign -Q -c {self._held.handle} -g sha256 -s ecdsa -d digest -f plain -o sig"
            self._held.run(line, folder=folder, pin=True)
            return raw((folder / "sig").read_bytes())

    def destroy(self) -> None:
        """Evicted from the TPM, which held the only copy."""
        self._held.destroy()

    def close(self) -> None:
        """Nothing is held open between two acts."""


class TpmWrappingKey:
    """A P-256 key in a TPM that agrees on keys."""

    def __init__(
        self, name: KeyName, environ: Mapping[str, str], randomness: Randomness, *, make: bool = False
    ) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit."""
        self._held, self.uri, self._randomness = _Held(name, environ, _WRAP, make=make), name.text, randomness

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """A fresh public point (65 bytes), then nonce and sealed bytes."""
        fresh = HeldKey.fresh(self._randomness).private
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self._held.public.point)
        mine = fresh.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        key = self._key(fresh.exchange(ec.ECDH(), theirs), mine)
        return mine + seal(key, fit(secret), purpose, self._randomness)

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret. Raises NotWrappedByThis."""
        try:
            point = PublicKey.from_point(wrapped[:POINT]).point
        except KeyInvalid as problem:
            raise NotWrappedByThis(self.uri) from problem
        with _Folder() as folder:
            (folder / "point").write_bytes(_tpm_point(point))
            self._held.run(f"tpm2_ecdhzgen -Q -c {self._held.handle} -u point -o z", folder=folder, pin=True)
            shared = (folder / "z").read_bytes()
        return unseal(self._key(_x_of(shared), point), wrapped[POINT:], purpose, self.uri)

    def _key(self, shared: bytes, point: bytes) -> bytes:
        info = b"paroma/wrap/v1\n" + point + self._held.public.point
        return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(shared)

    def destroy(self) -> None:
        """Evicted from the TPM, which held the only copy."""
        self._held.destroy()

    def close(self) -> None:
        """Nothing is held open between two acts."""


def _tpm_point(point: bytes) -> bytes:
    """TPM2B_ECC_POINT (TPM 2.0 Library, part 2, 11.2.5.3)."""
    body = b"".join(struct.pack(">H", 32) + one for one in (point[1:33], point[33:]))
    return struct.pack(">H", len(body)) + body


def _x_of(data: bytes) -> bytes:
    """The x coordinate of a TPM2B_ECC_POINT, 32 bytes: what ECDH agrees on."""
    (length,) = struct.unpack_from(">H", data, 2)
    return data[4 : 4 + length].rjust(32, b"\0")
