"""A hub and a hospital whose keys live in a PKCS#11 token, as real processes through the command alone."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from paroma.lab.processes import ProcessFailed, Program, Programs, call, command, free_port, listening, until

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")

pytestmark = pytest.mark.apt("softhsm2")


@pytest.fixture
def environ(tmp_path):
    """The environment of every command and program here: SoftHSM keeps its tokens in this test's folder."""
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    environ = {**os.environ, "SOFTHSM2_CONF": str(settings)}
    command = ["softhsm2-util", "--init-token", "--free", "--label", "both", "--so-pin", "12345678", "--pin", "4711"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
    return environ


@pytest.fixture
def uri(tmp_path):
    """Names keys: `uri("hub")`; their PIN lies in the file `pin`."""
    pin = tmp_path / "pin"
    pin.write_text("4711\n")
    pin.chmod(0o600)
    module = next((one for one in MODULES if Path(one).exists()), MODULES[0])
    return lambda name: f"pkcs11:token=both;object={name}?module-path={module}&pin-source=file:{pin}"


@pytest.mark.promise(3)
def test_a_hub_and_a_hospital_keep_their_keys_in_a_token_and_a_wrong_pin_says_so(environ, uri, tmp_path):
    def paroma(*arguments):
        return json.loads(call(*arguments, "--json", env=environ))

    hub, site, ports = tmp_path / "hub", tmp_path / "site", (free_port(), free_port())
    paroma("hub", "init", "Hearts", "--folder", hub, "--port", str(ports[0]), "--key", uri("hub"))
    assert not (hub / "keys" / "hub.pem").exists()
    with Programs() as programs:
        one = programs.add(Program("hub", command("hub", "run", "--folder", hub), tmp_path / "hub.log", environ))
        one.start(lambda: listening(ports[0]))
        line = paroma("hub", "invite", "--folder", hub)["invitation"]
        joining = ("site", "join", line, "--folder", site, "--title", "Linz", "--owner", "Linz")
        joining += ("--port", str(ports[1]), "--key", uri("linz"))
        me = paroma(*joining)["site"]
        assert paroma(*joining)["again"]
        assert not (site / "keys" / "site.pem").exists()
        assert paroma("key", "make", uri("root"), "--use", "wrap")["promise"]["leaves"].startswith("no")
        with (site / "site.toml").open("a") as file:
            file.write(f'root_keys = ["{uri("root")}"]\n')
        two = programs.add(Program("linz", command("site", "run", "--folder", site), tmp_path / "linz.log", environ))
        two.start(lambda: listening(ports[1]))

        def online():
            members = paroma("hub", "members", "--folder", hub)["members"]
            return [(one["site"], one["status"]) for one in members] == [(me, "online")]

        until(online, seconds=20, sentence="the site never came online")
        two.stop()
        roots = [path.read_bytes() for path in site.glob("root-*/*.key")]
        assert len(roots) == 2
        assert all(root.startswith(b"paroma root 2\n") for root in roots)
        (tmp_path / "pin").write_text("0000")
        with pytest.raises(ProcessFailed):
            two.start(lambda: listening(ports[1]))
        said = (tmp_path / "linz.log").read_text()
        assert "refuses the PIN" in said
        assert "0000" not in said
        (tmp_path / "pin").write_text("4711")
        paroma("key", "destroy", uri("root"), "--use", "wrap", "--yes")
        with pytest.raises(ProcessFailed):
            two.start(lambda: listening(ports[1]))
        assert "destroyed or never made" in (tmp_path / "linz.log").read_text()


def test_a_key_is_made_shown_and_destroyed_by_command(environ, uri, tmp_path):
    name = uri("mine")
    made = json.loads(call("key", "make", name, "--json", env=environ))
    assert json.loads(call("key", "show", name, "--json", env=environ))["thumbprint"] == made["thumbprint"]
    with pytest.raises(ProcessFailed) as refused:
        call("key", "make", name, env=environ)
    assert "already" in refused.value.message
    with pytest.raises(ProcessFailed) as refused:
        call("key", "destroy", name, env=environ, typed="no\n")
    assert "nothing was destroyed" in refused.value.message
    call("key", "destroy", name, env=environ, typed="destroy\n")
    with pytest.raises(ProcessFailed) as refused:
        call("key", "show", name, env=environ)
    assert "destroyed or never made" in refused.value.message
