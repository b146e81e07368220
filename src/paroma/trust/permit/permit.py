"""A permit: what a study may do with which data, how it is protected, until when; and the officers' signatures.

A permit is worth its signatures. Each site checks them itself, with the officers' keys that it knows from the
federation log; no word of the hub replaces them. Knows no database and no network. The order of the checks: form,
consistency, window, signatures; the first that fails is the error.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec

from paroma.kernel import canonical
from paroma.kernel.errors import Refused
from paroma.kernel.ids import DataSetId, PermitId, PersonId, SiteId, StudyId, printable
from paroma.trust.keys.signing import PublicKey, SignatureInvalid, SigningKey
from paroma.trust.policy import purposes

DOMAIN: Final = b"paroma/permit/v1\n"
ALGORITHMS: Final = frozenset({"statistics", "logistic", "flower"})
LONGEST_TERM: Final = 10 * 366 * 86400.0  # s; EHDS Art. 68(12): ten years at most
RING_BITS: Final = 64
MOST_FEATURES: Final = 512
MOST_SITES: Final = 128  # one secure sum; regions sum beyond (architecture)
LONGEST_TEXT: Final = 2000  # characters
LONGEST_ID: Final = 64  # characters
COARSEST: Final = 1000  # patients: the widest step to which counts are rounded
MOST_EPSILON: Final = 50.0  # beyond this the figure promises nothing to a patient
MOST_DELTA: Final = 1e-2
EXACT: Final = 2**53 - 1  # the largest whole number that canonical JSON carries exactly

OrganisationKind = Literal["university", "hospital", "public-body", "charity", "company", "unknown"]
Rule = tuple[bool, str, str]  # whether it holds, what is the case if not, what to do


class PermitInvalid(Refused):
    """The permit contradicts itself, or is not the text that was signed."""


class PermitExpired(Refused):
    """The permit's term is over."""


class PermitNotYet(Refused):
    """The permit's term has not begun."""


class PermitUnsigned(Refused):
    """A participant's officer has not signed, or the key is none of that site's officers'."""


class Participant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that takes part, and the organisation that owns it: the sites of one owner count once."""

    site: SiteId
    owner: str


class Privacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Differential privacy of a whole permit, per patient and hospital, under add-or-remove-one.

    epsilon, delta: the budget of the permit, over all of its questions.
    noise_multiplier: standard deviation of the noise of one question, in units of `clipping_norm`.
    clipping_norm: L2 length at which one patient's contribution is cut, in the unit of the algorithm's own rows.
    questions: how many questions the budget is meant for.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    clipping_norm: float
    questions: int


class Permit(msgspec.Struct, frozen=True, kw_only=True, tag="permit", forbid_unknown_fields=True):
    """What a study may do. Frozen: another wish is another permit.

    code: sha256 (hex) of the FAB that `flower` runs, else None.
    least_patients: the floor, for a site's cohort and for every figure. least_owners (m): distinct owners in a sum
    beside the colluders. colluders (c), dropouts: sites that may lie together, sites that may be lost, per round.
    privacy: None when differential privacy is off. most_patients: a site's cohort is capped there, for the ring.
    fraction_bits: reals are fixed point with this many bits in a ring of 64. attempts: at one question.
    questions: in all. counts_to: counts are told to the nearest multiple of this, 1 tells them exactly.
    starts, ends: unix seconds; valid in [starts, ends).
    organisation, organisation_kind, country: of the applicant, as they say and the officers sign; house rules read them.
    country: two letters (ISO 3166), or `unknown`.
    """

    id: PermitId
    study: StudyId
    title: str
    purpose: str
    applicant: PersonId
    data_set: DataSetId
    features: tuple[str, ...]
    algorithms: tuple[str, ...]
    code: str | None = None
    participants: tuple[Participant, ...]
    least_patients: int
    least_owners: int
    colluders: int
    dropouts: int
    mode: Literal["masked"] = "masked"
    privacy: Privacy | None = None
    most_patients: int
    fraction_bits: int = 40
    counts_to: int = 5
    attempts: int
    questions: int
    attestation: Literal["none"] = "none"
    starts: float
    ends: float
    organisation: str = "unknown"
    organisation_kind: OrganisationKind = "unknown"
    country: str = "unknown"


class Signature(msgspec.Struct, frozen=True, kw_only=True, tag="permit-signature", forbid_unknown_fields=True):
    """One officer's word for one site. key: RFC 7638 thumbprint. at: unix s. signature: ES256, r||s, 64 bytes."""

    site: SiteId
    officer: PersonId
    key: str
    at: float
    signature: bytes


class SignedPermit(msgspec.Struct, frozen=True, kw_only=True, tag="signed-permit", forbid_unknown_fields=True):
    """A permit and the signatures under it."""

    permit: Permit
    signatures: tuple[Signature, ...]


def threshold(n: int) -> int:
    """Of n participants, t: more than two thirds, so that two complete sets share an honest site (vote rules)."""
    return 2 * n // 3 + 1


def digest(permit: Permit) -> str:
    """Hex SHA-256 of the permit's canonical JSON (RFC 8785): its name in logs and votes."""
    return canonical.digest(msgspec.to_builtins(permit))


def message(permit: Permit, site: SiteId, officer: PersonId, at: float) -> bytes:
    """What an officer signs: the whole permit, for this site, in this officer's name, at this time (unix s)."""
    said = {"permit": msgspec.to_builtins(permit), "site": site, "officer": officer, "at": float(at)}
    return DOMAIN + canonical.encode(said)


def sign(permit: Permit, site: SiteId, officer: PersonId, key: SigningKey, at: float) -> Signature:
    """The signature of `officer` for `site`. at: unix s. Raises PermitInvalid: nothing inconsistent is signed."""
    check(permit)
    if site not in sites(permit):
        raise _not_a_participant(permit, site)
    signature = key.sign(message(permit, site, officer, at))
    return Signature(site=site, officer=officer, key=key.thumbprint, at=float(at), signature=signature)


def sites(permit: Permit) -> tuple[SiteId, ...]:
    """The participating sites, in the permit's order."""
    return tuple(participant.site for participant in permit.participants)


def verify(
    signed: SignedPermit,
    officers: Mapping[SiteId, Mapping[str, PublicKey]],
    at: float,
    *,
    study: StudyId | None = None,
    quorum: int | None = None,
) -> None:
    """Check that the permit holds at `at` (unix s), and that the officers of `quorum` participants signed exactly it.

    officers: per site, thumbprint to key. study: the study it is shown for, when known. quorum: all if None.
    Raises PermitInvalid, PermitNotYet, PermitExpired, PermitUnsigned; says nothing when all is well.
    """
    permit = signed.permit
    if study is not None and permit.study != study:
        raise PermitInvalid(
            f"permit `{printable(permit.id)}` belongs to study `{printable(permit.study)}`, not `{printable(study)}`",
            do="show the permit of the study that is asked for",
        )
    check(permit)
    check_window(permit, at)
    verify_signatures(signed, officers, quorum=quorum)


def check_window(permit: Permit, at: float) -> None:
    """Raise PermitNotYet or PermitExpired unless starts <= at < ends (unix s)."""
    if at < permit.starts:
        raise PermitNotYet(f"permit `{printable(permit.id)}` has not begun", do="repeat after its start")
    if not at < permit.ends:
        raise PermitExpired(f"permit `{printable(permit.id)}` has ended", do="apply for a new permit")


def check(permit: Permit) -> None:
    """Raise PermitInvalid unless the permit's figures can all be kept together."""
    for holds, sentence, do in (*_form(permit), *_protection(permit), *_term(permit)):
        if not holds:
            raise PermitInvalid(f"permit `{printable(permit.id)}`: {sentence}", do=do)


def verify_signatures(
    signed: SignedPermit, officers: Mapping[SiteId, Mapping[str, PublicKey]], *, quorum: int | None = None
) -> None:
    """Check the signatures only: whoever signed signed exactly this, and `quorum` participants (all if None) did.

    Raises PermitInvalid, PermitUnsigned.
    """
    permit, name = signed.permit, printable(signed.permit.id)
    waiting = set(sites(permit))
    quorum = len(waiting) if quorum is None else quorum
    if not 1 <= quorum <= len(waiting):
        raise PermitInvalid(
            f"permit `{name}`: {quorum} of {len(waiting)} participants is no quorum",
            do=f"ask for 1 to {len(waiting)} signatures",
        )
    missing_beyond = len(waiting) - quorum
    for signature in signed.signatures:
        if signature.site not in sites(permit):
            raise _not_a_participant(permit, signature.site)
        key = officers.get(signature.site, {}).get(signature.key)
        if key is None:
            raise PermitUnsigned(
                f"permit `{name}` is signed for site `{printable(signature.site)}` with a key of none of its officers",
                do="let an enrolled officer of that site sign",
            )
        try:
            key.verify(message(permit, signature.site, signature.officer, signature.at), signature.signature)
        except SignatureInvalid as problem:
            raise PermitInvalid(
                f"permit `{name}` is not what the officer of site `{printable(signature.site)}` signed",
                do="take the permit as it was issued, or have the edited one signed again",
            ) from problem
        waiting.discard(signature.site)
    if len(waiting) > missing_beyond:
        lacking = ", ".join(f"`{printable(site)}`" for site in sorted(waiting))
        raise PermitUnsigned(
            f"permit `{name}` lacks the signature of {lacking}", do="let the officers of those sites sign"
        )


def _not_a_participant(permit: Permit, site: SiteId) -> PermitInvalid:
    return PermitInvalid(
        f"permit `{printable(permit.id)}`: site `{printable(site)}` signs but does not take part",
        do="name the site as a participant, and have the new permit signed by all",
    )


def _form(permit: Permit) -> tuple[Rule, ...]:
    """Names and lists: present, short, known, once each."""
    owners = Counter(participant.owner for participant in permit.participants)
    texts = (permit.title, permit.purpose, *permit.features, *permit.algorithms, *owners, *sites(permit))
    unknown = sorted(set(permit.algorithms) - ALGORITHMS)
    return (
        (all(0 < len(text) <= LONGEST_TEXT for text in texts), "a name is empty or too long", "shorten or fill it in"),
        (_ids_are_whole(permit), "an id is not whole", "copy the ids from the catalogue"),
        (
            0 < len(permit.organisation) <= LONGEST_ID * 4 and permit.organisation.isprintable(),
            "the applicant's organisation has no name, or one that cannot be printed",
            "name it, or leave it out",
        ),
        (
            permit.organisation_kind in get_args(OrganisationKind),
            "the kind of the applicant's organisation is unknown",
            f"name one of {', '.join(get_args(OrganisationKind))}",
        ),
        (
            permit.country == "unknown" or re.fullmatch("[A-Z]{2}", permit.country) is not None,
            "the applicant's country is not two letters",
            "write it as in ISO 3166, for instance `CH`",
        ),
        (
            permit.purpose in purposes.ALLOWED,
            f"purpose `{printable(permit.purpose)}` is not one of the allowed purposes of secondary use",
            f"name one of {', '.join(purposes.ALLOWED)}",
        ),
        (
            0 < len(permit.features) <= MOST_FEATURES,
            "it names no feature, or too many",
            f"name 1 to {MOST_FEATURES} features",
        ),
        (len(set(permit.features)) == len(permit.features), "a feature is named twice", "name each feature once"),
        (bool(permit.algorithms), "it names no algorithm", f"name some of {', '.join(sorted(ALGORITHMS))}"),
        (
            not unknown,
            f"algorithm `{printable(unknown[0]) if unknown else ''}` is unknown",
            f"name some of {', '.join(sorted(ALGORITHMS))}",
        ),
        (
            len(set(permit.algorithms)) == len(permit.algorithms),
            "an algorithm is named twice",
            "name each algorithm once",
        ),
        (
            ("flower" in permit.algorithms) == (permit.code is not None),
            "`flower` and the digest of its code go together",
            "name the app's digest if, and only if, `flower` is among the algorithms",
        ),
        (
            permit.code is None or (len(permit.code) == 64 and set(permit.code) <= set("0123456789abcdef")),
            "the code's digest is not a hex SHA-256",
            "copy the digest that `paroma study app` prints",
        ),
        (
            len(set(sites(permit))) == len(permit.participants) <= MOST_SITES,
            "a site takes part twice, or too many take part",
            f"name each of at most {MOST_SITES} sites once",
        ),
    )


def _protection(permit: Permit) -> tuple[Rule, ...]:
    """The figures of the secure sum and of differential privacy (vote rules, section 1)."""
    n, m, c, t = len(permit.participants), permit.least_owners, permit.colluders, threshold(len(permit.participants))
    owners = len({participant.owner for participant in permit.participants})
    whole = (
        permit.least_patients, m, c, permit.dropouts, permit.most_patients, permit.fraction_bits, permit.attempts,
        permit.questions, permit.counts_to,
    )  # fmt: skip
    return (
        (all(type(x) is int and 0 <= x <= EXACT for x in whole), "a figure is negative or too large", "correct it"),
        (permit.mode == "masked", f"mode `{printable(str(permit.mode))}` is unknown", "choose `masked`"),
        (permit.attestation == "none", "its attestation is unknown", "write `none`"),
        (n >= 3, f"{n} participants cannot hide a sum", "name at least 3 sites"),
        (m >= 3, f"{m} owners at least is too few", "ask for at least 3 distinct owners"),
        (
            owners >= m,
            f"the participants have {owners} owners, fewer than the {m} it asks for",
            "name more owners' sites",
        ),
        (
            3 * c < n,
            f"{c} colluders of {n} participants is a third or more",
            "tolerate fewer colluders, or name more sites",
        ),
        (
            m + c <= t,
            f"{m} owners and {c} colluders do not fit a threshold of {t} of {n}",
            "lower the owners or the colluders, or name more sites",
        ),
        (
            permit.dropouts <= n - t,
            f"{permit.dropouts} dropouts of {n} participants leave fewer than the threshold of {t}",
            f"tolerate at most {n - t} dropouts",
        ),
        (permit.least_patients >= 1, "its floor is below one patient", "ask for at least 1 patient"),
        (
            permit.most_patients >= permit.least_patients,
            "its cap of patients is below its floor",
            "raise the cap or lower the floor",
        ),
        (
            _fits_the_ring(permit),
            f"{permit.most_patients} patients at {n} sites with {permit.fraction_bits} fraction bits overflow the ring",
            "lower the cap of patients or the fraction bits",
        ),
        (
            permit.attempts >= 1 and permit.questions >= 1,
            "it allows no question",
            "allow at least 1 attempt and 1 question",
        ),
        (
            1 <= permit.counts_to <= COARSEST,
            "its counts are rounded to nothing, or beyond use",
            f"tell counts to the nearest 1 (exactly) to {COARSEST}",
        ),
        *(_privacy(permit.privacy, permit.questions) if permit.privacy is not None else ()),
    )


def _privacy(privacy: Privacy, questions: int) -> tuple[Rule, ...]:
    figures = (privacy.epsilon, privacy.delta, privacy.noise_multiplier, privacy.clipping_norm)
    return (
        (all(math.isfinite(figure) for figure in figures), "a privacy figure is not finite", "write a finite number"),
        (
            0 < privacy.epsilon <= MOST_EPSILON,
            "epsilon protects nobody",
            f"choose epsilon above 0, at most {MOST_EPSILON:g}",
        ),
        (0 < privacy.delta <= MOST_DELTA, "delta protects nobody", f"choose delta above 0, at most {MOST_DELTA:g}"),
        (privacy.noise_multiplier > 0, "it adds no noise", "choose a noise multiplier above 0"),
        (privacy.clipping_norm > 0, "its clipping norm is not positive", "choose a clipping norm above 0"),
        (
            type(privacy.questions) is int and 1 <= privacy.questions <= questions,
            "the budget is for more questions than the permit allows, or for none",
            f"plan it for 1 to {questions} questions",
        ),
    )


def _term(permit: Permit) -> tuple[Rule, ...]:
    finite = math.isfinite(permit.starts) and math.isfinite(permit.ends)
    return (
        (finite, "its start or end is not a time", "write unix seconds"),
        (finite and 0 <= permit.starts < permit.ends, "it ends before it starts", "choose an end after the start"),
        (
            finite and permit.ends - permit.starts <= LONGEST_TERM,
            "its term is longer than ten years",
            "choose an earlier end",
        ),
    )


def _ids_are_whole(permit: Permit) -> bool:
    ids = (permit.id, permit.study, permit.applicant, permit.data_set, *sites(permit))
    return all(0 < len(text) <= LONGEST_ID and text.isprintable() for text in ids)


def _fits_the_ring(permit: Permit) -> bool:
    """Whether a sum of values of at most 1 a patient cannot wrap; larger values are each field's own proof."""
    if not 0 <= permit.fraction_bits < RING_BITS:
        return False
    return len(permit.participants) * permit.most_patients << permit.fraction_bits < 1 << (RING_BITS - 1)
