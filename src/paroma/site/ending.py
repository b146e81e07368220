"""What ends at a site: a patient's records, an officer's key. A permit's end is in `permits` and `round`.

Erasing comes after withdrawing: first no contribution with the patient is voted for any more, then the key of their
records is destroyed on every replica, then what they said and what was read of them is removed. Each step may be cut
and is done again by repeating. The site log keeps the certificate: a tag that names nobody to whoever lacks the
erasure key, the number of the new root, and on how many replicas the old one was destroyed.
"""

import re

import msgspec
from sqlalchemy import Connection, select

from paroma.data.consent import state as consent
from paroma.data.consent.statement import EVERYTHING
from paroma.data.rights import ledger as rights
from paroma.data.vault.errors import PatientUnknown
from paroma.kernel.clock import Clock
from paroma.kernel.errors import Refused
from paroma.kernel.ids import PatientId, PersonId, RunId
from paroma.kernel.store.database import upsert
from paroma.kernel.wire import framing
from paroma.site.parts import Site
from paroma.site.settings import Membership
from paroma.site.tables import FLAGS
from paroma.trust.audit import entries
from paroma.trust.audit.entries import PatientInClear
from paroma.trust.audit.journal import Journal
from paroma.trust.channel import outbox
from paroma.trust.federation import members
from paroma.trust.federation.messages import OfficerNamed
from paroma.trust.identity import people
from paroma.trust.identity.people import Person
from paroma.trust.keys.signing import SigningKey

SETTLE_SECONDS = 20.0  # for the runs that hold the patient's row in memory to end
LOOK_SECONDS = 0.2


class StillInMemory(Refused):
    """A run that began before holds the patient's row in memory: they are not read any more, and not yet gone."""

    def __init__(self, runs: tuple[RunId, ...]) -> None:
        super().__init__(
            f"the patient is withdrawn, and not yet erased: run `{runs[0]}` still holds their row in memory",
            do="repeat this when the run has ended, or end its permit here: `paroma site revoke PERMIT --reason ...`",
        )


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """Of an erasure. tag: names the patient to nobody but this site. entry: of the site log. epoch: of the root key that
    replaced the destroyed one. replicas: on how many that was. at: unix s. again: it had been done before.
    """

    tag: str
    entry: int
    epoch: int
    replicas: int
    at: float
    again: bool = False


async def erase(site: Site, patient: PatientId, reason: str, *, by: str) -> Certificate:
    """Destroy a patient's records, for good and in every backup.

    Raises PatientUnknown, StillInMemory, VaultUnavailable; PatientInClear for a reason that the log could not hold.
    """
    blocking, clock = site.ports.blocking, site.ports.clock
    # first: once the key is destroyed it is too late to refuse
    entries.seal("erasure", clock.now(), {"reason": reason})
    if _names(reason, patient):
        raise PatientInClear(
            "the reason names the patient, and the site log never forgets", do="give the reason without their number"
        )
    tag = await blocking.run(lambda: site.vault.erasure_tag(patient))
    done = await site.store.read(lambda tx: _certificate(tx, tag))
    if patient not in site.vault:
        if done is not None:
            return msgspec.structs.replace(done, again=True)
        if not site.vault.was_erased(patient):
            raise PatientUnknown
    await site.withdraw(patient, EVERYTHING, by=by)
    ends = clock.monotonic() + SETTLE_SECONDS
    while runs := await site.store.read(lambda tx: site.rounds.holding(tx, patient)):
        if clock.monotonic() >= ends:
            raise StillInMemory(runs)
        await clock.sleep(LOOK_SECONDS)
    erasure = await blocking.run(lambda: site.vault.erase([patient]))
    await blocking.run(lambda: site.board.erased([patient]))

    def forget(tx: Connection) -> Certificate:
        now = clock.now()
        consent.forget(tx, [patient], now)
        rights.forget(tx, [patient])
        people.forget_subject(tx, patient)
        entry = site.journal.write(
            tx, "erasure", tag=tag, epoch=erasure.epoch, replicas=erasure.replicas, by=by, reason=reason
        )
        made = Certificate(tag=tag, entry=entry, epoch=erasure.epoch, replicas=erasure.replicas, at=now)
        row = {"name": _name(tag), "value": msgspec.json.encode(made).decode()}
        put = upsert(tx, FLAGS).values(row)
        tx.execute(put.on_conflict_do_update(index_elements=["name"], set_={"value": row["value"]}))
        return made

    return await site.store.write(forget)


def revoke(
    tx: Connection,
    who: PersonId,
    reason: str,
    *,
    key: SigningKey,
    membership: Membership,
    journal: Journal,
    clock: Clock,
    by: str,
) -> tuple[Person, bool]:
    """End the key of one of the site's people; for an officer the federation is told, under the site's own signature.

    The person, and whether it had been done before. Permits that an officer signed with this key hold no more. Raises PersonUnknown.
    """
    person, now = people.person(tx, who), clock.now()
    if person.revoked is not None:
        return person, True
    people.revoke_person(tx, who, now=now)
    journal.write(tx, "person-revoked", person=who, role=person.role, key=person.thumbprint, by=by, reason=reason)
    if person.role == "officer" and person.key is not None:
        statement = members.enrolment(
            key, site=membership.site, person=who, name=person.name, officer=person.key, at=now, ended=True
        )
        if any(m.site == membership.site for m in members.members(tx)):
            members.take_enrolment(tx, statement)
        outbox.send(tx, f"officer-ended/{who}", framing.pack(OfficerNamed(statement=statement)), now=now)
    return people.person(tx, who), False


def _names(reason: str, patient: PatientId) -> bool:
    """Whether the reason holds the patient's number: the hospital's own has no form that the log could know.

    One of fewer than four characters is also an ordinary word or number.
    """
    return len(patient) >= 4 and re.search(rf"(?<!\w){re.escape(patient)}(?!\w)", reason, re.IGNORECASE) is not None


def _certificate(tx: Connection, tag: str) -> Certificate | None:
    found = tx.execute(select(FLAGS.c.value).where(FLAGS.c.name == _name(tag))).scalar_one_or_none()
    return None if found is None else msgspec.json.decode(found, type=Certificate)


def _name(tag: str) -> str:
    return f"erased/{tag[:32]}"
