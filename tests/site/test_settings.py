from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from paroma.kernel.errors import BadInput
from paroma.site.reports import _which
from paroma.site.settings import SiteSettings, load, machine_zone, to_toml


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "\x00", "Europe"])
def test_a_time_zone_that_nobody_knows_is_refused_with_an_example(tmp_path, name):
    with pytest.raises(BadInput) as refusal:
        SiteSettings(folder=tmp_path, title="t", timezone=name)
    assert "Europe/Berlin" in refusal.value.do


def test_the_file_names_the_zone(tmp_path):
    (tmp_path / "site.toml").write_text('folder = "."\ntitle = "t"\ntimezone = "Europe/Berlin"\n')
    assert load(tmp_path).zone == ZoneInfo("Europe/Berlin")


def test_without_a_zone_it_is_the_machines(tmp_path):
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Europe/Zurich")
    assert machine_zone(link) == ZoneInfo("Europe/Zurich")
    assert machine_zone(tmp_path / "none") is UTC
    link.unlink()
    link.symlink_to("/usr/share/zoneinfo/Etc/UTC")
    assert machine_zone(link) is UTC
    (tmp_path / "torn").write_bytes(b"TZif")
    assert machine_zone(tmp_path / "torn") is UTC


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([7], "round 7"),
        ([1, 2, 3], "3 rounds (1 to 3)"),
        ([1, 2, 4, 6, 7], "5 rounds (1 to 2, 4, 6 to 7)"),
        ([3, 3], "round 3"),
    ],
)
def test_rounds_are_summed_up(numbers, said):
    from paroma.data.rights.ledger import Round

    rounds = [Round(round=n, attempt=a, read_at=0.0, committed_at=0.0) for a, n in enumerate(numbers)]
    assert _which(rounds) == said


def test_names_of_keys_are_read_at_once_and_written_by_joining(tmp_path):
    name = "pkcs11:token=hospital;object=site?module-path=/m.so&pin-source=file:/run/pin"
    made = SiteSettings(folder=tmp_path, title='The "Linz" site', signing_key=name)
    (tmp_path / "site.toml").write_text(to_toml(made))
    assert load(tmp_path).signing_key == name
    for wrong in ({"signing_key": "site.pem"}, {"root_keys": ("",)}, {"root_keys": (name + "&pin-value=1",)}):
        with pytest.raises(BadInput):
            SiteSettings(folder=tmp_path, title="Linz", **wrong)
