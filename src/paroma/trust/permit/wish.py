"""What an applicant asks for, before it is a permit: the same content without ids, participants and dates."""

from typing import Literal

import msgspec

from paroma.kernel.ids import DataSetId, PermitId, PersonId, SiteId, StudyId
from paroma.trust.permit.permit import OrganisationKind, Participant, Permit, Privacy

DAY = 86400.0


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for. study: an own earlier study's id, or None for a new one. days: how long the permit is to hold.

    benefit: in words that a patient understands. safeguards: what the applicant does against misuse.
    code: sha256 (hex) of the bundle that `flower` runs. The rest is as in `Permit`.
    """

    title: str
    purpose: str
    data_set: DataSetId
    features: tuple[str, ...]
    algorithms: tuple[str, ...]
    benefit: str
    safeguards: str = "the results of the secure sum only, no record"
    study: StudyId | None = None
    code: str | None = None
    least_patients: int = 10
    least_owners: int = 3
    colluders: int = 0
    dropouts: int = 1
    privacy: Privacy | None = None
    most_patients: int = 100_000
    fraction_bits: int = 40
    counts_to: int = 5
    attempts: int = 3
    questions: int = 40
    attestation: Literal["none"] = "none"
    days: float = 365.0
    organisation: str = "unknown"
    organisation_kind: OrganisationKind = "unknown"
    country: str = "unknown"


def permit_of(
    wish: Wish,
    *,
    permit: PermitId,
    study: StudyId,
    applicant: PersonId,
    participants: tuple[Participant, ...],
    now: float,
) -> Permit:
    """The permit that officers are asked to sign. now: unix s; it begins at once."""
    return Permit(
        id=permit,
        study=study,
        title=wish.title,
        purpose=wish.purpose,
        applicant=applicant,
        data_set=wish.data_set,
        features=wish.features,
        algorithms=wish.algorithms,
        code=wish.code,
        participants=participants,
        least_patients=wish.least_patients,
        least_owners=wish.least_owners,
        colluders=wish.colluders,
        dropouts=wish.dropouts,
        privacy=wish.privacy,
        most_patients=wish.most_patients,
        fraction_bits=wish.fraction_bits,
        counts_to=wish.counts_to,
        attempts=wish.attempts,
        questions=wish.questions,
        attestation=wish.attestation,
        starts=float(int(now)),
        ends=float(int(now + wish.days * DAY)),
        organisation=wish.organisation,
        organisation_kind=wish.organisation_kind,
        country=wish.country,
    )


class SiteRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """One hospital's no. site: set where its officer ended there what had been valid."""

    title: str
    policy: str
    because: str
    to_change: str
    site: SiteId | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an application stands: what a person sees of it. waiting: titles of sites whose officer has not signed yet.

    state: submitted, valid, refused, revoked. refusals: who said no, by which rule, why, and what would pass.
    """

    permit: Permit
    state: str
    asked_by: str
    signed: tuple[str, ...]
    waiting: tuple[str, ...]
    refusals: tuple[SiteRefusal, ...]
