"""Homes of keys that the tests start themselves, on this machine: a TPM, a PKCS#11 token, a key service, a folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from paroma.kernel.disk import SystemDisk
from paroma.kernel.randomness import OsRandomness
from paroma.trust.keys.named import Homes

KINDS = [
    pytest.param("file", id="file"),
    pytest.param("tpm", id="tpm", marks=[pytest.mark.apt("swtpm"), pytest.mark.apt("tpm2-tools")]),
    pytest.param("pkcs11", id="pkcs11", marks=pytest.mark.apt("softhsm2")),
    pytest.param("awskms", id="awskms"),
]
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PIN = "4711"
ACCOUNT = "arn:aws:kms:eu-central-1:123456789012"


@dataclass
class Place:
    """One home. uri(name, use): of a key that is not there yet. away, back: unplug it and plug it in again."""

    kind: str
    uri: Callable[[str, str], str]
    away: Callable[[], None]
    back: Callable[[], None]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def homes(self):
        """The door to it."""
        return Homes(environ=self.environ, disk=SystemDisk(), randomness=OsRandomness())


@pytest.fixture(params=KINDS)
def place(request):
    """Every home in turn, empty."""
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture
def file_place(tmp_path):
    """A folder."""
    here = tmp_path / "keys"
    here.mkdir()
    aside = tmp_path / "aside"
    return Place("file", lambda name, _: f"file:{here / name}", lambda: here.rename(aside), lambda: aside.rename(here))


@pytest.fixture
def tpm_place(tmp_path):
    """A software TPM behind a socket, without a resource manager."""
    state, socket, pin = tmp_path / "tpm", tmp_path / "s", tmp_path / "pin"
    state.mkdir()
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    running = [_swtpm(state, socket)]

    def away():
        running[0].terminate()
        running.pop().wait(10)
        socket.unlink(missing_ok=True)

    handles: dict[str, int] = {}

    def uri(name, _):
        handle = 0x81010000 + handles.setdefault(name, len(handles))
        return f"tpm:swtpm:path={socket}?handle={handle:#010x}&pin-source=file:{pin}"

    yield Place("tpm", uri, away, lambda: running.append(_swtpm(state, socket)))
    while running:
        away()


def _swtpm(state: Path, socket: Path):
    control = socket.with_suffix(".ctrl")
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"]
    command += ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={control}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not socket.exists():
        assert process.poll() is None, "swtpm ended at its start"
        assert time.monotonic() < until, "swtpm did not start"
        time.sleep(0.01)
    return process


@pytest.fixture(scope="session")
def _token_folder(tmp_path_factory):
    """Where SoftHSM keeps its tokens: it reads its settings once in a process."""
    here = tmp_path_factory.mktemp("softhsm")
    (here / "tokens").mkdir()
    settings = here / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {here / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(settings)
    yield here / "tokens"
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture
def pkcs11_place(_token_folder, tmp_path):
    """A new token in SoftHSM."""
    label, module = f"t{os.urandom(4).hex()}", next(one for one in MODULES if Path(one).exists())
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN]
    before = set(_token_folder.iterdir())
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (mine,) = set(_token_folder.iterdir()) - before
    aside = tmp_path / "aside"

    def uri(name, _):
        return f"pkcs11:token={label};object={name}?module-path={module}&pin-source=env:TOKEN_PIN"

    yield Place(
        "pkcs11",
        uri,
        lambda: shutil.move(mine, aside),
        lambda: shutil.move(aside, mine),
        {"TOKEN_PIN": PIN},
    )
    shutil.rmtree(mine, ignore_errors=True)


@pytest.fixture
def awskms_place():
    """moto's server: a key service's protocol, without its durability and without real accounts."""
    servers = [_moto(0)]
    port = servers[0].get_host_and_port()[1]
    mine = {
        "AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)  # as an operator gives them to the program
    prefix = os.urandom(4).hex()

    def back():
        servers.append(_moto(port))

    yield Place("awskms", lambda name, _: f"awskms:{ACCOUNT}:alias/{prefix}-{name}", lambda: servers.pop().stop(), back)
    for server in servers:
        server.stop()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def _moto(port: int) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server
