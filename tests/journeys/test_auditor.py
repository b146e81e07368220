"""An auditor: takes the log along, and checks it without any network."""

import json

import pytest

from paroma.lab.processes import ProcessFailed, until


@pytest.fixture
def copy(running, tmp_path):
    target = tmp_path / "copy"
    running.command("audit", "export", target, "--profile", "jonas", "--json")
    return target


@pytest.mark.promise(4)
def test_a_copy_of_the_log_is_checked_offline(running, copy):
    said = {}

    def cosigned():
        try:
            said.update(json.loads(running.command("audit", "verify", "--folder", copy, "--json")))
        except ProcessFailed as problem:
            if "cosignatures" not in problem.message:
                raise
            running.command("audit", "export", copy, "--profile", "jonas", "--json")
        return bool(said)

    until(cosigned, seconds=30, sentence="the copy was not cosigned")
    assert said["holds"] is True
    assert len(said["cosigned_by"]) >= 3


@pytest.mark.promise(4)
def test_a_byte_that_was_edited_in_the_copy_is_found(running, copy):
    entries = sorted((copy / "tile" / "entries").rglob("*"))
    file = next(path for path in entries if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ProcessFailed) as failed:
        running.command("audit", "verify", "--folder", copy, "--cosigned", "0")
    assert "changed" in failed.value.message or "differ" in failed.value.message
