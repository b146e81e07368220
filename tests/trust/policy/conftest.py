"""One allowed request an action, from the packs' own ground: the corpus that the tests bend."""

import msgspec
import pytest

from paroma.trust.policy import house, trial
from paroma.trust.policy.decide import load

EVERY_SENTENCE = (
    "no-purpose purpose=product-development",
    "no-purpose purpose=education",
    "never-kind kind=genetic",
    "only-organisations kinds=university,hospital",
    "nobody-from-country country=US",
    "nobody-from-organisation organisation=Acme Ltd",
    "no-foreign-code",
    "private-only",
    "epsilon-at-most epsilon=3",
    "at-least-patients patients=50",
    "not-between-hours from=22 to=6",
    "no-run-longer seconds=3600",
    "no-contribution-longer seconds=30",
    "no-contribution-larger mib=512",
    "at-least-sites sites=3",
    "at-most-at-once many=2",
)


def make(action, **changed):
    asked = trial.good(action)
    return msgspec.structs.replace(asked, facts=msgspec.structs.replace(asked.facts, **changed))


@pytest.fixture(scope="session")
def policies():
    return load()


@pytest.fixture(scope="session")
def every_sentence():
    return tuple(house.parse(one) for one in EVERY_SENTENCE)


@pytest.fixture(scope="session")
def strict(every_sentence):
    """A house that ticked every sentence."""
    return load(house=every_sentence)


@pytest.fixture(scope="session")
def ask():
    """`ask("TakePart", now=500)`: an allowed request with some facts changed."""
    return make


@pytest.fixture(scope="session")
def own():
    """`own(text, tests)`: a pack of one's own."""
    from paroma.trust.policy import packs

    def make_pack(text, tests="", name="ours", version="1"):
        meta = f'name = "{name}"\nversion = "{version}"\ntitle = "Ours"\nsays = "For tests."\n'
        tests = tests or '[[test]]\nsays = "x"\naction = "Pause"\ndecision = "allowed"\npolicy = "pause"\n'
        files = {"pack.toml": meta.encode(), "policies.cedar": text.encode(), "tests.toml": tests.encode()}
        return packs.own(files), files

    return make_pack


@pytest.fixture(scope="session")
def bent():
    """`bent(ask, now=500)`: the same request with facts changed."""
    return lambda asked, **changed: msgspec.structs.replace(
        asked, facts=msgspec.structs.replace(asked.facts, **changed)
    )
