"""One allowed request an action: the corpus that the tests bend."""

import msgspec
import pytest

from paroma.trust.policy.decide import Ask, load
from paroma.trust.policy.facts import TYPES, Entity, fields

GOOD = {
    "proven": True, "enrolled": True, "roles": frozenset({"scientist", "officer", "committee", "operator", "desk"}),
    "member": "online", "attestation": "none", "attestation_asked": "none", "log": "consistent", "checkpoint_age": 1,
    "grace": 60, "cosignatures": 3, "quorum": 3, "risk": 0, "paused": False, "permit_state": "valid", "permit_signed": True,
    "takes_part": True, "purpose": "scientific-research", "now": 100, "starts": 50, "ends": 200,
    "algorithms": frozenset({"logistic", "statistics"}), "private": True, "epsilon_thousandths": 3000, "least_patients": 50,
    "algorithm": "logistic", "features": frozenset({"age"}), "permitted_features": frozenset({"age", "sex"}),
    "floor_reached": True, "steady": True, "budget_enough": True, "questions_left": 3, "attempts_left": 2,
    "walls_missing": frozenset(), "invitation": "open", "is_applicant": True, "sites_online": 4, "least_sites": 3,
}  # fmt: skip
WHO = {
    "Receive": "Hub",
    "Consider": "Hub",
    "TakePart": "Hub",
    "Vote": "Hub",
    "Answer": "Hub",
    "Join": "Site",
    "Exchange": "Site",
    "ReadOwnUses": "Patient",
}
WHAT = {
    **dict.fromkeys(("Receive", "Join", "Exchange", "ReadCatalogue", "ReadLog", "ReadMembers", "Invite"), "Federation"),
    **dict.fromkeys(("ReadOwnUses", "Withdraw", "IssuePatientLink"), "Patient"),
    **dict.fromkeys(("LoadRecords", "ReadSite", "Pause", "Resume", "Quarantine"), "Site"),
}


def make(action, **changed):
    kind = TYPES[action]
    given = {name: GOOD[name] for name, _ in fields(kind)}
    if action == "DecideApplication":
        given["is_applicant"] = False
    principal = Entity(WHO.get(action, "Person"), "one")
    return Ask(
        action=action,
        principal=principal,
        resource=Entity(WHAT.get(action, "Study"), "one"),
        facts=kind(**given | changed),
    )


@pytest.fixture(scope="session")
def policies():
    return load()


@pytest.fixture(scope="session")
def strict():
    """A house that ticked every sentence."""
    from paroma.trust.policy.decide import house_sentences

    return load(house=[sentence.id for sentence in house_sentences()])


@pytest.fixture(scope="session")
def ask():
    """`ask("TakePart", now=500)`: an allowed request with some facts changed."""
    return make


@pytest.fixture(scope="session")
def bent():
    """`bent(ask, now=500)`: the same request with facts changed."""
    return lambda asked, **changed: msgspec.structs.replace(
        asked, facts=msgspec.structs.replace(asked.facts, **changed)
    )
