"""An older copy of a site's database, or of its vault, does not open: see `paroma.site.anchors`."""

import shutil

import pytest

from paroma.data.consent.statement import EVERYTHING
from paroma.data.vault.errors import VaultUnavailable
from paroma.learn.algorithms.query import Statistics
from paroma.learn.disclosure.ledger import BudgetOutdated
from paroma.site import anchors
from paroma.site.anchors import Anchors, DatabaseOutdated
from paroma.site.round import After

AGE = Statistics(features=("age",))
VAULT, DATABASE = "vault", "site.db"


@pytest.fixture
def on_files(fed, founded, tmp_path):
    """A federation over SQLite: what is restored here are files."""
    return fed.copied(founded, tmp_path / "town")


def kept(town, part, into):
    """A copy of a part of the site `va`, which stands still."""
    here = town.folder / "va"
    into.mkdir()
    for path in sorted(here.glob(f"{part}*")):
        shutil.copytree(path, into / path.name) if path.is_dir() else shutil.copy2(path, into / path.name)


def bring_back(town, part, copy):
    here = town.folder / "va"
    for path in here.glob(f"{part}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in copy.iterdir():
        shutil.copytree(path, here / path.name) if path.is_dir() else shutil.copy2(path, here / path.name)


async def spend(town):
    permit = await town.permit(counts_to=1)
    report = await town.run(permit, AGE)
    assert report["status"] == "finished"
    assert any(e["kind"] == "vote-signed" for e in town.site_log("va"))


async def withdraw(town):
    await town.sites["va"].withdraw(town.patients("va")[0], EVERYTHING, by="patient")


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    ("part", "act", "refusal"),
    [
        pytest.param(VAULT, spend, BudgetOutdated, id="vault without a debit"),
        pytest.param(DATABASE, spend, DatabaseOutdated, id="database without a vote"),
        pytest.param(DATABASE, withdraw, DatabaseOutdated, id="database without a patient's no"),
    ],
)
def test_an_older_copy_does_not_open_and_the_newest_does(on_files, tmp_path, part, act, refusal):
    town, old, new = on_files, tmp_path / "old", tmp_path / "new"
    kept(town, part, old)
    town.play(act)
    kept(town, part, new)
    bring_back(town, part, old)

    async def refused(town):
        with pytest.raises(refusal) as error:
            await town.start_site("va")
        assert "newest copy" in error.value.do
        with pytest.raises(refusal):  # what was refused let go of its files, and is refused again
            await town.start_site("va")

    town.play(refused, sites=())
    bring_back(town, part, new)

    async def opens(town):
        await town.start_site("va")
        assert town.site_log("va")

    town.play(opens, sites=())


@pytest.mark.promise(5)
def test_a_crash_between_debit_and_log_is_no_older_copy(on_files):
    """The ledger is a debit ahead of the log: that is what a crash leaves, and it opens."""

    async def scene(town):
        await spend(town)
        site = town.sites["va"]
        from paroma.learn.disclosure.ledger import Charge

        wish = Charge(
            attempt="00", question="00", permit="permit-x", study="study-x", mu_squared=1, limit=9, questions=1, attempts=1,
            patients=town.patients("va"),
        )  # fmt: skip
        head = site.budget.reserve(wish).head
        await town.stop_site("va")
        await town.start_site("va")
        assert town.sites["va"].budget.head() == head

    on_files.play(scene)


def test_many_anchors_at_once_keep_each_other(on_files):
    """Two runs that settle at the same moment: neither swaps the other away."""
    import asyncio

    from paroma.site import anchors
    from paroma.site.round import After

    async def scene(town):
        rounds = town.sites["va"].rounds
        before = rounds._anchored.log
        await asyncio.gather(*(rounds.settle(After(anchored={f"run-{i}": i}, log=before + i)) for i in range(1, 20)))
        kept = anchors.read(rounds._p.anchors)
        assert kept.log == before + 19
        assert kept.runs == {f"run-{i}": i for i in range(1, 20)}

    on_files.play(scene, sites=("va",))


class Failing:
    """A register whose disk does not take anything as long as `broken`."""

    def __init__(self, inner):
        self.inner, self.broken = inner, False

    def read(self):
        return self.inner.read()

    def swap(self, expected, value):
        if self.broken:
            raise VaultUnavailable(OSError(28, "no space left"), "write a register")
        return self.inner.swap(expected, value)


@pytest.mark.promise(2)
def test_an_anchor_that_could_not_be_written_is_written_before_anything_else_leaves(town):
    """Taken for written, the vote that rests on it would be given again by a database from before it."""

    async def scene(town):
        site = town.sites["va"]
        rounds, register = site.rounds, Failing(site.vault.register("runs"))
        rounds._p.anchors = register
        done = await site.withdraw(town.patients("va")[0], EVERYTHING, by="patient")
        before = anchors.read(register).log
        assert before > done.entry
        register.broken = True
        with pytest.raises(VaultUnavailable):
            await rounds.settle(After(log=before + 1))
        register.broken = False
        assert anchors.read(register).log == before
        await rounds.settle(After())
        assert anchors.read(register).log == before + 1
        rounds._anchored = rounds._kept = Anchors(
            log=before
        )  # nothing was committed: the town's log is as long as it is
        anchors.write(register, rounds._kept)

    town.play(scene)
