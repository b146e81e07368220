"""Gathers the facts on which the site decides a use. Facts are read at the decision and kept nowhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor

import msgspec
from sqlalchemy import Connection, select

from paroma.data.catalogue.data_set import parse
from paroma.data.consent.statement import Use
from paroma.kernel.ids import SiteId
from paroma.site.tables import FLAGS, PERMITS
from paroma.trust.audit import cosignatures, witness
from paroma.trust.audit.cosignatures import GRACE, QuorumMissing
from paroma.trust.audit.notes import NoteInvalid, NoteKey
from paroma.trust.channel.heads import cosigning_key
from paroma.trust.federation import members
from paroma.trust.federation.members import Member
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit, SignedPermit
from paroma.trust.policy.facts import Answer, Consider, TakePart, Vote

NEVER = 10**9  # s: how old a checkpoint is that no quorum has cosigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a contribution needs to be known beside the permit. Filled by the round, from vault, ledger and sandbox."""

    algorithm: str
    features: frozenset[str]
    floor_reached: bool
    budget_enough: bool
    questions_left: int
    attempts_left: int
    walls_missing: frozenset[str]
    hour: int
    computing: int
    run_seconds: int
    run_mib: int


def use_of(permit: Permit) -> Use:
    """The use that a permit stands for, as consent knows it."""
    return Use(purpose=permit.purpose, study=permit.study)


def quorum_of(permit: Permit) -> int:
    """How many participants must have cosigned: k > (n + f) / 2."""
    return cosignatures.quorum(len(permit.participants), permit.colluders)


def witnesses_of(tx: Connection, permit: Permit) -> dict[str, NoteKey]:
    """The participants' cosignature keys, as the federation log admits them."""
    return _witnesses(members.members(tx), permit)


def _witnesses(everybody: Iterable[Member], permit: Permit) -> dict[str, NoteKey]:
    known = {m.site: m.log_vkey for m in everybody}
    return {s: cosigning_key(NoteKey.parse(known[s])) for s in permits.sites(permit) if s in known}


def consider(tx: Connection, permit: Permit) -> Consider:
    """Facts of an application."""
    return Consider(**asked(tx, permit))  # type: ignore[arg-type]  # checked by the facts themselves


def take_part(
    tx: Connection, permit: Permit, me: SiteId, cosigned: str, origin: str, now: float, this: Round
) -> TakePart:
    """Facts of a contribution."""
    said = asked(tx, permit)
    del said["purpose"]
    return TakePart(
        **_under(tx, permit, me, cosigned, origin, now),  # type: ignore[arg-type]
        **said,  # type: ignore[arg-type]
        algorithm=this.algorithm,
        features=this.features,
        permitted_features=frozenset(permit.features),
        floor_reached=this.floor_reached,
        budget_enough=this.budget_enough,
        questions_left=this.questions_left,
        attempts_left=this.attempts_left,
        walls_missing=this.walls_missing,
        hour=this.hour,
        computing=this.computing,
        run_seconds=this.run_seconds,
        run_mib=this.run_mib,
    )


def vote(tx: Connection, permit: Permit, me: SiteId, cosigned: str, origin: str, now: float) -> Vote:
    """Facts of a vote."""
    return Vote(**_under(tx, permit, me, cosigned, origin, now))  # type: ignore[arg-type]


def answer(tx: Connection, permit: Permit, me: SiteId, cosigned: str, origin: str, now: float) -> Answer:
    """Facts of an answer."""
    return Answer(**_under(tx, permit, me, cosigned, origin, now))  # type: ignore[arg-type]


def paused(tx: Connection) -> bool:
    """Whether an officer paused all uses."""
    return tx.execute(select(FLAGS.c.value).where(FLAGS.c.name == "paused")).scalar_one_or_none() == "yes"


def asked(tx: Connection, permit: Permit) -> dict[str, object]:
    """What an application asks for, as every action in `Reviewing` reads it."""
    privacy = permit.privacy
    return {
        "purpose": permit.purpose,
        "algorithms": frozenset(permit.algorithms),
        "private": privacy is not None,
        "epsilon_thousandths": 0 if privacy is None else ceil(1000 * privacy.epsilon),
        "least_patients": permit.least_patients,
        "kinds": kinds_of(tx, permit),
        "organisation": permit.organisation,
        "organisation_kind": permit.organisation_kind,
        "country": permit.country,
    }


def kinds_of(tx: Connection, permit: Permit) -> frozenset[str]:
    """The special kinds of data among the permit's features, by this site's own description; `unknown` where it has none."""
    found = tx.execute(select(FLAGS.c.value).where(FLAGS.c.name == f"set/{permit.data_set}"[:40])).scalar_one_or_none()
    if found is None:
        return frozenset({"unknown"})
    described = {feature.name: feature.special for feature in parse(found.encode()).features}
    return frozenset(kind for name in permit.features if (kind := described.get(name, "unknown")))


def _still_signed(tx: Connection, content: bytes) -> bool:
    """Whether no key that made the permit valid here was ended since: whoever stole it may have signed, and the hub may go on."""
    ended = members.signs_no_more(tx)
    if not ended:
        return True
    signed = msgspec.msgpack.decode(content, type=SignedPermit)
    return not any((one.site, one.key) in ended for one in signed.signatures)


def _under(tx: Connection, permit: Permit, me: SiteId, cosigned: str, origin: str, now: float) -> Mapping[str, object]:
    k, everybody = quorum_of(permit), members.members(tx)
    try:
        times = cosignatures.cosigners(cosigned, _witnesses(everybody, permit)) if cosigned else {}
        count, age = len(times), ceil(max(cosignatures.age_of(times, k, now), 0.0)) if times else NEVER
    except (QuorumMissing, NoteInvalid):
        count, age = 0, NEVER
    row = tx.execute(select(PERMITS.c.state, PERMITS.c.content).where(PERMITS.c.permit == permit.id)).one_or_none()
    state = None if row is None else row.state
    status = {m.site: m.status for m in everybody}.get(me, "left")
    return {
        "member": status,
        "attestation": "none",
        "attestation_asked": permit.attestation,
        "log": "inconsistent" if witness.trouble(tx, origin) else "consistent",
        "checkpoint_age": age,
        "grace": int(GRACE),
        "cosignatures": count,
        "quorum": k,
        "paused": paused(tx),
        "permit_state": state or "unknown",
        "permit_signed": row is not None and state == "valid" and _still_signed(tx, bytes(row.content)),
        "takes_part": me in permits.sites(permit),
        "purpose": permit.purpose,
        "now": floor(now),
        "starts": ceil(permit.starts),
        "ends": floor(permit.ends),
    }
