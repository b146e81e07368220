import asyncio
import stat

import pytest

from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import OsRandomness
from paroma.sdk import profile as profiles
from paroma.sdk.login import ProfileTaken, login
from paroma.trust.identity.login_line import LoginLine, LoginLineUnreadable, parse

LOCAL = "http://127.0.0.1:8480"


class ToHub:
    def __init__(self, hub):
        self.hub = hub

    def unknown(self, origin):
        return self.hub

    def known(self, origin, authority):
        return self.hub


@pytest.fixture
def local(hub):
    return type(hub)(LOCAL)


def enrol(hub, where, code="the-code", *, url=LOCAL, new_key=False):
    line = LoginLine(url=url, code=code)
    return asyncio.run(
        login(
            line, where, clock=SystemClock(), randomness=OsRandomness(), disk=SystemDisk(), ways=ToHub(hub),
            new_key=new_key,
        )
    )  # fmt: skip


def test_logging_in_keeps_a_key_and_a_profile_that_only_the_owner_reads(local, tmp_path):
    where = tmp_path / "home" / "ada"
    assert enrol(local, where).name == "Ada"
    assert profiles.load(where).origin == LOCAL
    assert {stat.S_IMODE((where / name).stat().st_mode) for name in ("key.pem", "profile.json")} == {0o600}
    assert stat.S_IMODE(where.stat().st_mode) == 0o700


def test_repeating_it_with_the_same_key_is_safe(local, tmp_path):
    enrol(local, tmp_path)
    key = (tmp_path / "key.pem").read_bytes()
    assert enrol(local, tmp_path).name == "Ada"
    assert (tmp_path / "key.pem").read_bytes() == key


@pytest.mark.promise(3)
def test_a_spent_line_enrols_no_second_key(local, tmp_path):
    enrol(local, tmp_path / "a")
    with pytest.raises(Refused, match="used before"):
        enrol(local, tmp_path / "b")
    with pytest.raises(profiles.NotLoggedIn):
        profiles.load(tmp_path / "b")


def test_a_new_key_replaces_the_old_one_only_when_it_is_enrolled(local, tmp_path):
    enrol(local, tmp_path)
    key = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(Refused):
        enrol(local, tmp_path, new_key=True)
    assert (tmp_path / "key.pem").read_bytes() == key
    local.enrolled = None
    enrol(local, tmp_path, new_key=True)
    assert (tmp_path / "key.pem").read_bytes() != key
    assert not (tmp_path / "key.new.pem").exists()


def test_a_profile_is_not_taken_to_another_place(local, tmp_path):
    enrol(local, tmp_path)
    with pytest.raises(ProfileTaken, match="is Ada at"):
        enrol(local, tmp_path, url="http://127.0.0.1:9999")


@pytest.mark.promise(3)
def test_a_profile_that_others_can_write_is_not_used(local, tmp_path):
    enrol(local, tmp_path)
    (tmp_path / "profile.json").chmod(0o666)
    with pytest.raises(profiles.ProfileUnsafe):
        profiles.load(tmp_path)


def test_the_environment_chooses_home_and_profile(tmp_path):
    assert profiles.folder({"PAROMA_HOME": str(tmp_path)}) == tmp_path / "default"
    assert profiles.folder({"PAROMA_HOME": str(tmp_path), "PAROMA_PROFILE": "ada"}) == tmp_path / "ada"
    with pytest.raises(BadInput):
        profiles.folder({"PAROMA_HOME": str(tmp_path)}, "../elsewhere")


@pytest.mark.parametrize(
    "line",
    [
        LoginLine(url="https://hub.example:8443", fingerprint="ab" * 32, code="c"),
        LoginLine(url=LOCAL, code="c"),
    ],
)
def test_a_login_line_reads_back(line):
    assert parse(f"  {line}\n") == line


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "line",
    [
        "paroma-login:",
        "paroma-join:e30",
        str(LoginLine(url="https://hub.example:8443", code="c")),  # no fingerprint
        str(LoginLine(url="http://hub.example:80", code="c")),  # no TLS, and not on this machine
        str(LoginLine(url=LOCAL, fingerprint="ab" * 32, code="c")),
        str(LoginLine(url=LOCAL, code="")),
        str(LoginLine(url=LOCAL, code="c"))[:-1],
        "paroma-login:" + "A" * 3000,
    ],
)
def test_a_damaged_or_open_line_is_refused(line):
    with pytest.raises(LoginLineUnreadable):
        parse(line)
