"""Names of keys: what is read, and that nothing unread is passed over."""

import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from paroma.kernel.errors import ParomaError
from paroma.trust.keys.errors import KeyLibraryMissing, KeyPinWrong, KeyUriInvalid
from paroma.trust.keys.named import Homes
from paroma.trust.keys.names import parse, pin_of

TOKEN = "pkcs11:token=hospital%20one;object=site?module-path=/usr/lib/m.so"
GOOD = [
    "file:/var/lib/paroma/site.pem",
    "tpm:/dev/tpmrm0?handle=0x81010010",
    "tpm:swtpm:path=/tmp/s?handle=0x81010010&pin-source=file:/run/pin",
    TOKEN,
    TOKEN + "&pin-source=env:PIN",
    "pkcs11:serial=00ab;object=site;type=private?module-path=/m.so",
    "awskms:arn:aws:kms:eu-central-1:123456789012:alias/paroma-site",
    "awskms:arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/0a1b-2c",
]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_name_is_taken_apart(text):
    assert parse(text).scheme == text.partition(":")[0]


def test_percent_signs_and_all_parts_are_read():
    name = parse(TOKEN + "&pin-source=env:PIN")
    assert name.members == {
        "token": "hospital one",
        "object": "site",
        "module-path": "/usr/lib/m.so",
        "pin-source": "env:PIN",
    }
    assert parse(GOOD[1]).handle == 0x81010010
    assert parse(GOOD[6]).region == "eu-central-1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "site.pem",
        "/var/lib/site.pem",
        "file:site.pem",
        "file:/a?b=c",
        "gcpkms:projects/x",
        "tpm:/dev/tpmrm0",
        "tpm:/dev/tpmrm0?handle=0x40000001",
        "tpm:/dev/tpmrm0?handle=81010010",
        "tpm:cmd:rm -rf?handle=0x81010010",
        "tpm:/dev/tpm rm0?handle=0x81010010",
        "pkcs11:token=a?module-path=/m.so",
        "pkcs11:object=a?module-path=/m.so",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a;object=b;slot-id=1?module-path=/m.so",
        "pkcs11:token=a;token=b;object=b?module-path=/m.so",
        "pkcs11:token=a;object=?module-path=/m.so",
        "awskms:arn:aws:s3:::bucket",
        "awskms:arn:aws:kms:eu-central-1:123:alias/x",
    ],
)
def test_a_wrong_name_is_refused_with_one_that_is_right(text):
    with pytest.raises(KeyUriInvalid) as caught:
        parse(text)
    assert "`" in caught.value.do


def test_a_pin_in_a_name_is_refused_and_not_repeated():
    with pytest.raises(KeyUriInvalid) as caught:
        parse(TOKEN + "&pin-value=4711")
    assert "4711" not in str(caught.value)
    assert "pin-source" in caught.value.do


@given(st.sampled_from(["file:", "tpm:", "pkcs11:", "awskms:", ""]), st.text(max_size=60))
def test_whatever_stands_there_is_a_name_or_a_sentence(scheme, rest):
    try:
        name = parse(scheme + rest)
    except KeyUriInvalid:
        return
    assert name.scheme == scheme.rstrip(":")


def test_a_pin_comes_from_a_file_of_its_owner_or_from_a_variable(tmp_path):
    file = tmp_path / "pin"
    file.write_text("4711\n")
    file.chmod(0o600)
    by_file = parse(f"{TOKEN}&pin-source=file:{file}")
    assert pin_of(by_file, {}) == "4711"
    assert pin_of(parse(f"{TOKEN}&pin-source=env:PIN"), {"PIN": "0815"}) == "0815"
    assert pin_of(parse(TOKEN), {"PIN": "0815"}) is None
    for spoil in (
        lambda: file.chmod(0o640),
        file.unlink,
        lambda: (file.write_text(""), file.chmod(0o600)),
        file.unlink,
    ):
        spoil()
        with pytest.raises(KeyPinWrong) as caught:
            pin_of(by_file, {})
        assert "4711" not in str(caught.value)
    with pytest.raises(KeyPinWrong):
        pin_of(parse(f"{TOKEN}&pin-source=env:PIN"), {})
    with pytest.raises(KeyUriInvalid):
        pin_of(parse(f"{TOKEN}&pin-source=pin"), {})


@pytest.mark.parametrize(
    ("name", "without", "install"),
    [
        ("tpm:/dev/tpmrm0?handle=0x81010010", "", "tpm2-tools"),
        ("pkcs11:token=a;object=b?module-path=/m.so", "pkcs11", "paroma[hsm]"),
        ("awskms:arn:aws:kms:eu-central-1:123456789012:alias/a", "boto3", "paroma[kms]"),
    ],
)
def test_what_is_not_installed_is_named_with_what_to_install(name, without, install):
    program = (
        f"import sys; sys.modules[{without!r}] = None; from paroma.cli import start; sys.exit(start.run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "key", "show", name]
    done = subprocess.run(command, env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert install in done.stderr


def test_a_module_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KeyLibraryMissing) as caught:
        Homes(environ={}, disk=None, randomness=None).signing("pkcs11:token=a;object=b?module-path=/nowhere/m.so")
    assert "/nowhere/m.so" in str(caught.value)
    assert issubclass(KeyLibraryMissing, ParomaError)
