"""An operator and a new hospital: one line, once."""

import json

import pytest

from paroma.lab.processes import ProcessFailed


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
