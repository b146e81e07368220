"""An operator and a new hospital: one line, once."""

import json

import pytest

from paroma.lab.processes import ProcessFailed, Program, command, free_port, listening, until


def join(running, line, folder, title="Vienna"):
    return json.loads(
        running.command("site", "join", line, "--folder", folder, "--title", title, "--owner", title, "--json")
    )


@pytest.mark.promise(3)
def test_an_invitation_lets_one_site_in_and_repeating_it_is_safe(running, tmp_path):
    line = json.loads(running.command("hub", "invite", "--folder", running.folder / "hub", "--json"))["invitation"]
    first = join(running, line, tmp_path / "vienna")
    again = join(running, line, tmp_path / "vienna")
    assert (first["site"], first["again"], again["again"]) == (again["site"], False, True)
    with pytest.raises(ProcessFailed) as refused:
        join(running, line, tmp_path / "graz")
    assert "used" in refused.value.message
    assert not (tmp_path / "graz" / "member.json").exists()


@pytest.mark.promise(3)
@pytest.mark.parametrize("line", ["paroma-join:AAAA", "hello"])
def test_a_line_that_is_no_invitation_is_refused_with_what_to_copy(running, tmp_path, line):
    with pytest.raises(ProcessFailed) as refused:
        join(running, line, tmp_path / "vienna")
    assert "not a whole invitation" in refused.value.message
    assert not (tmp_path / "vienna" / "member.json").exists()


@pytest.mark.promise(3)
def test_a_site_that_dies_is_offline_in_seconds_and_one_that_is_shut_off_stays_out(running, tmp_path):
    """Over real sockets: the hub sees the connection break, long before its parked request would have ended (25 s)."""
    hub = ("--folder", running.folder / "hub", "--json")
    line = json.loads(running.command("hub", "invite", *hub))["invitation"]
    folder, port = tmp_path / "linz", free_port()
    said = running.command(
        "site", "join", line, "--folder", folder, "--title", "Linz", "--owner", "Linz", "--port", str(port), "--json"
    )
    site = json.loads(said)["site"]

    def status():
        found = json.loads(running.command("hub", "members", *hub))["members"]
        return next(one["status"] for one in found if one["site"] == site)

    program = Program("linz", command("site", "run", "--folder", folder), tmp_path / "linz.log", running.environment())
    try:
        program.start(lambda: listening(port))
        until(lambda: status() == "online", seconds=20, sentence="the site never came online")
        program.kill()
        assert until(lambda: status() == "offline", seconds=24, sentence="nobody noticed") < 20
        program.start(lambda: listening(port))
        until(lambda: status() == "online", seconds=20, sentence="the site never came back")
        shut = json.loads(running.command("hub", "member", "quarantine", site, "--reason", "a test of it", *hub))
        assert (shut["state"], shut["again"]) == ("quarantined", False)
        again = running.command("hub", "member", "quarantine", site, "--reason", "again", *hub[:2])
        assert "is shut off already, since 20" in again
        assert status() == "quarantined"
        json.loads(running.command("hub", "member", "release", site, "--reason", "all is well", *hub))
        until(lambda: status() == "online", seconds=20, sentence="the site never came back")
    finally:
        program.stop()
        gone = json.loads(running.command("hub", "member", "remove", site, "--reason", "the test is over", *hub))
    assert gone["state"] == "left"
    with pytest.raises(ProcessFailed) as refused:
        running.command("hub", "member", "quarantine", "site-0000000000000000", "--reason", "no", *hub)
    assert "there is no site" in refused.value.message
