"""Four hospitals, their officers' keys, and a permit that they may sign."""

from types import SimpleNamespace

import msgspec
import pytest

from paroma.kernel.randomness import SeededRandomness
from paroma.trust.keys.signing import HeldKey
from paroma.trust.permit.permit import Participant, Permit, Privacy, SignedPermit, sign

SITES = ("site-a", "site-b", "site-c", "site-d")
NOW = 1_800_000_000.0


@pytest.fixture(scope="session")
def keys():
    randomness = SeededRandomness(b"officers")
    return {site: HeldKey.fresh(randomness) for site in (*SITES, "site-x")}


@pytest.fixture(scope="session")
def officers(keys):
    return {site: {keys[site].thumbprint: keys[site].public} for site in SITES}


@pytest.fixture(scope="session")
def permit():
    return Permit(
        id="permit-1",
        study="study-1",
        title="Heart disease in four hospitals",
        purpose="scientific-research",
        applicant="person-1",
        data_set="heart",
        features=("age", "sex"),
        algorithms=("statistics", "logistic"),
        participants=tuple(Participant(site=site, owner=f"owner of {site}") for site in SITES),
        least_patients=10,
        least_owners=3,
        colluders=0,
        dropouts=1,
        privacy=Privacy(epsilon=3.0, delta=1e-5, noise_multiplier=2.0, clipping_norm=1.0, questions=20),
        most_patients=100_000,
        attempts=3,
        questions=20,
        starts=NOW,
        ends=NOW + 86400,
    )


@pytest.fixture(scope="session")
def signed(permit, keys):
    return SignedPermit(permit=permit, signatures=tuple(signature(permit, keys, site) for site in SITES))


@pytest.fixture(scope="session")
def words():
    return SimpleNamespace(SITES=SITES, NOW=NOW, sign=signature, change=msgspec.structs.replace)


def signature(permit, keys, site, key=None):
    return sign(permit, site, f"person-of-{site}", keys[key or site], NOW)
