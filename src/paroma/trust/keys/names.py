"""Names of keys: `file:/path`, `tpm:/dev/tpmrm0?handle=0x81010010`, `pkcs11:token=...;object=...?...`, `awskms:ARN`.

`pkcs11:` is RFC 7512, of which we take the attributes below. A PIN never stands in a name: `pin-source` says in which file
or variable it lies, because names end up in settings, process lists and messages.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from paroma.kernel.ids import printable
from paroma.trust.keys.errors import KeyPinWrong, KeyUriInvalid

MOST_PIN: Final = 256
_KNOWN: Final = {
    "file": (frozenset[str](), frozenset[str]()),
    "tpm": (frozenset[str](), frozenset({"handle", "pin-source"})),
    "pkcs11": (frozenset({"token", "serial", "object", "type"}), frozenset({"module-path", "pin-source"})),
    "awskms": (frozenset[str](), frozenset[str]()),
}
_EXAMPLES: Final = {
    "file": "file:/var/lib/paroma/key.pem",
    "tpm": "tpm:/dev/tpmrm0?handle=0x81010010",
    "pkcs11": "pkcs11:token=hospital;object=paroma-site?module-path=/usr/lib/module.so&pin-source=file:/run/secrets/pin",
    "awskms": "awskms:arn:aws:kms:eu-central-1:123456789012:alias/paroma-site",
}
_TPM_PATH: Final = re.compile(r"/[\w./-]+|(?:device|swtpm|mssim|tabrmd):[\w.,:=/-]+")
_ARN: Final = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):(\d{12}):(?:key/[\w-]+|alias/[\w/-]+)")


@dataclass(frozen=True, slots=True)
class KeyName:
    """A name taken apart. path: what stands before `?`, whole for all but `pkcs11`, whose parts are in `members`."""

    text: str
    scheme: str
    path: str
    members: Mapping[str, str]

    def need(self, member: str) -> str:
        """A member that must be there. Raises KeyUriInvalid."""
        try:
            return self.members[member]
        except KeyError:
            raise _invalid(self.text, f"lacks `{member}`", self.scheme) from None

    @property
    def handle(self) -> int:
        """The persistent handle of a key in a TPM: 0x81000000 to 0x81FFFFFF (TPM 2.0 Library, part 2, 7.2)."""
        text = self.need("handle")
        if not re.fullmatch(r"0x81[0-9a-fA-F]{6}", text):
            raise _invalid(self.text, "has a handle that is not between 0x81000000 and 0x81ffffff", self.scheme)
        return int(text, 16)

    @property
    def region(self) -> str:
        """The region in an ARN."""
        found = _ARN.fullmatch(self.path)
        if found is None:
            raise _invalid(self.text, "is no ARN of a KMS key or alias", self.scheme)
        return found[1]


def parse(text: str) -> KeyName:
    """Take the name of a key apart. Raises KeyUriInvalid; the sentence never repeats a PIN."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _KNOWN:
        raise KeyUriInvalid(
            f"`{printable(scheme)}` is no home of keys that we know",
            do=f"begin the name with one of {', '.join(f'`{one}:`' for one in _KNOWN)}",
        )
    if "pin-value" in rest:
        raise KeyUriInvalid(
            "the name of the key holds its PIN, which would end up in settings and messages",
            do="write the PIN into a file of mode 600, name it as `pin-source=file:/path`, and change the PIN",
        )
    path, _, query = rest.partition("?")
    attributes, queries = _KNOWN[scheme]
    members = _pairs(text, scheme, query, "&", queries)
    if scheme == "pkcs11":
        members |= _pairs(text, scheme, path, ";", attributes)
    fits = {
        "file": Path(unquote(path)).is_absolute(),
        "tpm": _TPM_PATH.fullmatch(path) is not None,
        "awskms": _ARN.fullmatch(path) is not None,
        "pkcs11": "object" in members and ("token" in members or "serial" in members) and "module-path" in members,
    }
    if not fits[scheme]:
        raise _invalid(text, "is not whole", scheme)
    name = KeyName(text, scheme, unquote(path) if scheme == "file" else path, members)
    if scheme == "tpm":
        _ = name.handle
    return name


def pin_of(name: KeyName, environ: Mapping[str, str]) -> str | None:
    """The PIN that the name's `pin-source` leads to; None where it has none. Raises KeyPinWrong, KeyUriInvalid."""
    source = name.members.get("pin-source")
    if source is None:
        return None
    kind, _, where = source.partition(":")
    if kind == "env":
        pin = environ.get(where, "")
        place = f"the variable `{printable(where)}`"
    elif kind == "file" and Path(where).is_absolute():
        pin, place = _from_file(Path(where)), f"the file `{printable(where)}`"
    else:
        raise _invalid(name.text, "has a `pin-source` that is neither `file:/path` nor `env:NAME`", name.scheme)
    if not 0 < len(pin) <= MOST_PIN:
        raise KeyPinWrong(f"{place} holds no PIN", do="write the token's PIN there, and nothing else")
    return pin


def _from_file(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise KeyPinWrong(
            f"the PIN file `{path}` cannot be read: {problem.strerror}", do="make it a file of this user, mode 600"
        ) from problem
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise KeyPinWrong(
                f"others can read the PIN file `{path}`", do="change the PIN, and keep it in a plain file of mode 600"
            )
        return os.read(descriptor, MOST_PIN + 2).decode("utf-8", "replace").rstrip("\r\n")
    finally:
        os.close(descriptor)


def _pairs(text: str, scheme: str, part: str, between: str, known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, part.split(between)):
        member, equals, value = pair.partition("=")
        if not equals or not value or member in found or member not in known:
            raise _invalid(text, f"has `{printable(member)}` where one of {sorted(known)} may stand once", scheme)
        found[member] = unquote(value)
    return found


def _invalid(text: str, why: str, scheme: str) -> KeyUriInvalid:
    return KeyUriInvalid(
        f"the name of the key, `{printable(text, longest=120)}`, {why}", do=f"write it as in `{_EXAMPLES[scheme]}`"
    )
