import pytest

from paroma.kernel.errors import Unavailable
from paroma.site import commands


def test_records_are_not_brought_in_under_a_running_site_and_the_sentence_says_what_to_do(town, tmp_path):
    from paroma.lab import heart

    async def scene(town):
        site = town.sites["va"]
        before = site.vault.patients()
        (site.settings.folder / "site.toml").write_text('folder = "."\ntitle = "va"\n')
        description = tmp_path / "set.json"
        import msgspec

        description.write_bytes(msgspec.json.encode(heart.data_set()))
        with pytest.raises(Unavailable) as refusal:
            commands.load(site.settings.folder, [], description)
        assert type(refusal.value).__name__ == "SiteRunning"
        assert "is running" in refusal.value.message
        for word in ("stop it", "load again", "paroma site run"):
            assert word in refusal.value.do
        assert site.vault.patients() == before

    town.play(scene, sites=("va",))
