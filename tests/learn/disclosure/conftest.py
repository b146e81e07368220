import pytest

from paroma.trust.permit.permit import Participant, Permit, Privacy


@pytest.fixture
def make_permit():
    """A permit of `sites` owners; anything else by name."""

    def make(sites=4, **changes):
        figures = {
            "id": "permit-0000000000000000",
            "study": "study-0000000000000000",
            "title": "Heart",
            "purpose": "scientific-research",
            "applicant": "person-0000000000000000",
            "data_set": "dataset-0000000000000000",
            "features": ("age", "num"),
            "algorithms": ("statistics", "logistic"),
            "participants": tuple(
                Participant(site=f"site-000000000000000{i}", owner=f"owner{i}") for i in range(sites)
            ),
            "least_patients": 10,
            "least_owners": 3,
            "colluders": 0,
            "dropouts": 1,
            "most_patients": 2000,
            "attempts": 3,
            "questions": 20,
            "starts": 0.0,
            "ends": 1e9,
        }
        return Permit(**figures | changes)

    return make


@pytest.fixture
def privacy():
    return Privacy(epsilon=1.0, delta=1e-5, noise_multiplier=14.0, clipping_norm=1.2, questions=12)
