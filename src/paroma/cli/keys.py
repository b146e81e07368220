"""`paroma key`: keys that live in a file, a TPM, a PKCS#11 token or a KMS, by their names."""

from enum import StrEnum
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput
from paroma.kernel.randomness import OsRandomness
from paroma.trust.keys.named import PROMISES, Homes
from paroma.trust.keys.names import parse
from paroma.trust.keys.wrapping import OwnedKey, WrappingKey

APP = show.app("Keys in a file, a TPM, an HSM or a KMS: make, show, destroy.")
Name = Annotated[
    str, typer.Argument(help="`file:/path`, `tpm:...`, `pkcs11:...` or `awskms:...`; never with a PIN in it.")
]


class Use(StrEnum):
    """What a key is for: one key never does both."""

    sign = "sign"
    wrap = "wrap"


UseOption = Annotated[Use, typer.Option(help="To sign with, or to wrap a vault's root key.")]


@APP.command()
def make(name: Name, use: UseOption = Use.sign, *, json: Json = False) -> None:
    """Make a key where it will live. None is ever overwritten."""
    if use is Use.sign:
        _signs(_homes().make_signing(name), json=json)
    else:
        _wraps(_homes().make_wrapping(name), json=json)


@APP.command("show")
def show_(name: Name, use: UseOption = Use.sign, *, json: Json = False) -> None:
    """Open a key, try it, and say what its home can promise."""
    if use is Use.sign:
        _signs(_homes().signing(name), json=json)
    else:
        _wraps(_homes().wrapping(name), json=json)


@APP.command()
def destroy(
    name: Name,
    use: UseOption = Use.sign,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask once more.")] = False,
    json: Json = False,
) -> None:
    """Destroy a key. What it wrapped can never be read again, and nothing is signed with it any more."""
    key: OwnedKey | WrappingKey = _homes().signing(name) if use is Use.sign else _homes().wrapping(name)
    if not yes:
        said = typer.prompt("What this key wrapped is lost with it. Type `destroy`", err=True)
        if said.strip() != "destroy":
            raise BadInput("that is another word: nothing was destroyed", do="repeat the command, or give --yes")
    key.destroy()
    key.close()
    promise = PROMISES[parse(name).scheme].destroyed
    show.done({"key": name, "destroyed": True, "promise": promise}, f"destroyed: {promise}", json=json)


def _homes() -> Homes:
    return Homes.of_this_machine(SystemDisk(), OsRandomness())


def _signs(key: OwnedKey, *, json: bool) -> None:
    key.public.verify(b"paroma/try", key.sign(b"paroma/try"))  # in some homes a wrong PIN shows at the first use only
    key.close()
    _show(key.uri, Use.sign, key.thumbprint, json=json)


def _wraps(key: WrappingKey, *, json: bool) -> None:
    key.unwrap(key.wrap(bytes(32), b"paroma/try"), b"paroma/try")
    key.close()
    _show(key.uri, Use.wrap, "", json=json)


def _show(name: str, use: Use, thumbprint: str, *, json: bool) -> None:
    promise = PROMISES[parse(name).scheme]
    lines = [
        ("key", name),
        ("use", use.value),
        ("thumbprint", thumbprint),
        ("can be copied out", promise.leaves),
        ("when destroyed", promise.destroyed),
        ("a thief of the disk has", promise.stolen),
    ]
    value = {"key": name, "use": use.value, "thumbprint": thumbprint, "promise": promise}
    show.done(value, show.facts(lines), json=json)
