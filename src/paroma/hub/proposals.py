"""From an application to a permit: what sites offer, who is asked, who signed, who refused. The hub only relays.

A permit is valid here when every participant's officer has signed; each site checks that again by itself. All functions run in
the caller's transaction, and return the sites that have mail.
"""

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select, update

from paroma.data.catalogue.data_set import DataSet, Offered, columns
from paroma.hub import bundles
from paroma.hub.tables import OFFERS, PERMITS
from paroma.kernel import ids
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import DataSetId, PermitId, PersonId, SiteId, StudyId, printable
from paroma.kernel.randomness import Randomness
from paroma.kernel.store.database import upsert
from paroma.kernel.wire import framing
from paroma.learn.algorithms import plan as algorithms
from paroma.learn.algorithms.query import Feature
from paroma.trust.audit.journal import Journal
from paroma.trust.channel import mailbox
from paroma.trust.federation import members
from paroma.trust.identity import people
from paroma.trust.permit import permit as permits
from paroma.trust.permit.messages import PermitEnded, PermitIssued, PermitProposed, PermitRefused, PermitSigned
from paroma.trust.permit.permit import Participant, Permit, SignedPermit
from paroma.trust.permit.wish import SiteRefusal, Standing, Wish, permit_of


class PermitUnknown(Refused):
    """There is no such permit here."""

    def __init__(self, permit: str) -> None:
        super().__init__(f"there is no permit `{printable(permit)}`", do="list them with `paroma permit list`")


class PermitOver(Refused):
    """The permit was refused: there is nothing to end."""

    def __init__(self, permit: str) -> None:
        super().__init__(f"permit `{printable(permit)}` was refused: nothing runs under it", do="leave it as it is")


class DataSetUnknown(BadInput):
    """Nobody offers this data set."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no site offers the data set `{printable(name)}`", do="list them with `paroma study list`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What `revoke` did. at: unix s, when it took effect. again: it had been done before. rung: sites that have mail."""

    title: str
    at: float
    again: bool
    rung: frozenset[SiteId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Sends to sites within the caller's transaction."""

    clock: Clock

    def send(self, tx: Connection, to: SiteId, name: str, message: msgspec.Struct) -> None:
        """Put `message` into the mailbox of `to`, once under `name`."""
        mailbox.post(tx, to, name, framing.pack(message), now=self.clock.now())


# -- what sites offer


def offer(tx: Connection, site: SiteId, offered: Offered, at: float) -> None:
    """A site holds records of this data set. One id has one description. Raises BadInput."""
    try:
        known = data_set(tx, offered.data_set.id)
    except DataSetUnknown:
        known = offered.data_set
    if known.digest() != offered.data_set.digest():
        raise BadInput(
            f"the data set `{printable(offered.data_set.id)}` is described otherwise by another site",
            do="use the same description, or give yours another id",
        )
    row = {"site": site, "data_set": known.id, "description": msgspec.json.encode(known), "at": at}
    tx.execute(upsert(tx, OFFERS).values(row).on_conflict_do_nothing())


def data_set(tx: Connection, name: str) -> DataSet:
    """The description of a data set. Raises DataSetUnknown."""
    found = tx.execute(select(OFFERS.c.description).where(OFFERS.c.data_set == name).limit(1)).scalar_one_or_none()
    if found is None:
        raise DataSetUnknown(name)
    return msgspec.json.decode(found, type=DataSet)


def data_sets(tx: Connection) -> tuple[tuple[DataSet, tuple[SiteId, ...]], ...]:
    """All data sets, with the sites that hold records of them."""
    held: dict[str, list[SiteId]] = {}
    for row in tx.execute(select(OFFERS.c.site, OFFERS.c.data_set).order_by(OFFERS.c.data_set, OFFERS.c.site)):
        held.setdefault(row.data_set, []).append(SiteId(row.site))
    return tuple((data_set(tx, name), tuple(sites)) for name, sites in held.items())


# -- from a wish to a permit


def apply(
    tx: Connection,
    wish: Wish,
    *,
    by: PersonId,
    asked_by: str,
    log: Journal,
    post: Post,
    randomness: Randomness,
) -> tuple[Permit, set[SiteId]]:
    """Ask every site that offers the data set. Raises DataSetUnknown, FeatureUnknown, BundleUnknown, PermitInvalid,
    NoiseTooCoarse and NoiseOutOfRange (no question could be answered under this noise), Refused.
    """
    described = data_set(tx, wish.data_set)
    for name in wish.features:
        described.feature(name)
    offering = dict(data_sets_by_id(tx)).get(wish.data_set, ())
    known = {m.site: m for m in members.members(tx) if m.status in members.TAKES_PART}
    participants = tuple(Participant(site=s, owner=known[s].owner) for s in offering if s in known)
    study = wish.study or StudyId(ids.fresh("study", randomness))
    if wish.study is not None:
        _own_study(tx, wish.study, by)
    permit = permit_of(
        wish,
        permit=PermitId(ids.fresh("permit", randomness)),
        study=study,
        applicant=by,
        participants=participants,
        now=post.clock.now(),
    )
    permits.check(permit)
    algorithms.check_permit(permit, msgspec.convert(columns(described), tuple[Feature, ...]))
    app = b"" if permit.code is None else bundles.bundle(tx, permit.code)
    at = post.clock.now()
    log.write(
        tx, "application-submitted", permit=permits.digest(permit), study=study, purpose=wish.purpose, applicant=by
    )
    tx.execute(
        insert(PERMITS).values(
            permit=permit.id,
            study=study,
            applicant=by,
            asked_by=asked_by,
            content=msgspec.msgpack.encode(SignedPermit(permit=permit, signatures=())),
            benefit=wish.benefit,
            state="submitted",
            said="[]",
            at=at,
        )
    )
    for one in participants:
        message = PermitProposed(permit=permit, asked_by=asked_by, benefit=wish.benefit, bundle=app)
        post.send(tx, one.site, f"proposed/{permit.id}", message)
    return permit, {one.site for one in participants}


def refuse(tx: Connection, site: SiteId, said: PermitRefused, *, log: Journal, post: Post) -> set[SiteId]:
    """A site said no: the application is refused for all, with that site's reason."""
    row = _row(tx, said.permit)
    permit = _signed(row).permit
    if said.site != site or site not in permits.sites(permit) or row["state"] != "submitted":
        return set()
    known = msgspec.json.decode(row["said"], type=list[SiteRefusal])
    title = members.member(tx, site).title
    known.append(_told(title, said))
    tx.execute(
        update(PERMITS)
        .where(PERMITS.c.permit == said.permit)
        .values(state="refused", said=msgspec.json.encode(known).decode())
    )
    log.write(
        tx, "application-refused", permit=permits.digest(permit), site=site, policy=printable(said.policy, longest=80)
    )
    return _end(tx, permit, "refused", post)


def _told(title: str, said: PermitRefused) -> SiteRefusal:
    """A site's words, fit for the applicant's terminal and pages."""
    return SiteRefusal(
        title=title,
        policy=printable(said.policy, longest=80),
        because=printable(said.because, longest=500),
        to_change=printable(said.to_change, longest=500),
    )


def sign(tx: Connection, site: SiteId, said: PermitSigned, *, log: Journal, post: Post) -> set[SiteId]:
    """A site's officer signed. When all have, the permit is issued; by who applied, it is refused.

    Raises PermitUnknown, and what `permit.verify` raises.
    """
    row = _row(tx, said.permit)
    signed_ = _signed(row)
    if row["state"] != "submitted" or said.signature.site != site:
        return set()
    one = SignedPermit(permit=signed_.permit, signatures=(said.signature,))
    keys = {site: {o.key.thumbprint: o.key for o in members.officers(tx, site) if o.ended is None}}
    permits.verify_signatures(one, keys, quorum=1)
    applicant = people.find_client(tx, signed_.permit.applicant)
    if applicant is not None and applicant.key.thumbprint == said.signature.key:
        own = PermitRefused(  # nobody approves their own study
            permit=said.permit,
            site=site,
            policy="own-study",
            because="the officer who signed there is who applied",
            to_change="apply again, and let another officer of this hospital sign",
        )
        return refuse(tx, site, own, log=log, post=post)
    if any(s.site == site for s in signed_.signatures):
        return set()
    both = SignedPermit(permit=signed_.permit, signatures=(*signed_.signatures, said.signature))
    log.write(
        tx,
        "permit-signed",
        permit=permits.digest(both.permit),
        site=site,
        officer=said.signature.officer,
        key=said.signature.key,
    )
    complete = len(both.signatures) == len(both.permit.participants)
    tx.execute(
        update(PERMITS)
        .where(PERMITS.c.permit == said.permit)
        .values(content=msgspec.msgpack.encode(both), state="valid" if complete else "submitted")
    )
    if not complete:
        return set()
    log.write(tx, "permit-issued", permit=permits.digest(both.permit), study=both.permit.study)
    for name in permits.sites(both.permit):
        post.send(tx, name, f"issued/{both.permit.id}", PermitIssued(signed=both, asked_by=row["asked_by"]))
    return set(permits.sites(both.permit))


def revoke(tx: Connection, permit: str, *, by: str, reason: str, log: Journal, post: Post) -> Revoked:
    """End a permit before its time. Repeating it changes nothing. Raises PermitUnknown, PermitOver."""
    row = _row(tx, permit)
    found = _signed(row).permit
    if row["state"] == "revoked":
        return Revoked(title=found.title, at=row["ended"], again=True)
    if row["state"] == "refused":
        raise PermitOver(permit)
    now = post.clock.now()
    tx.execute(update(PERMITS).where(PERMITS.c.permit == permit).values(state="revoked", ended=now))
    log.write(tx, "permit-revoked", permit=permits.digest(found), by=by, reason=reason)
    return Revoked(title=found.title, at=now, again=False, rung=frozenset(_end(tx, found, "revoked", post)))


def left(tx: Connection, site: SiteId, permit: str, reason: str, *, log: Journal) -> int | None:
    """The officer of `site` ended a permit there; its entry in the log, None where it changes nothing. Raises PermitUnknown."""
    row = _row(tx, permit)
    found = _signed(row).permit
    known = msgspec.json.decode(row["said"], type=list[SiteRefusal])
    if row["state"] != "valid" or site not in permits.sites(found) or any(one.site == site for one in known):
        return None
    title = members.member(tx, site).title
    known.append(
        SiteRefusal(title=title, policy="officer", because=reason, to_change="talk with the site's officer", site=site)
    )
    tx.execute(update(PERMITS).where(PERMITS.c.permit == permit).values(said=msgspec.json.encode(known).decode()))
    return log.write(tx, "permit-left", permit=permits.digest(found), site=site)


def signed_with(tx: Connection, site: SiteId, key: str) -> tuple[PermitId, ...]:
    """The valid permits that bear a signature for `site` by this key (thumbprint)."""
    rows = tx.execute(select(PERMITS).where(PERMITS.c.state == "valid")).mappings()
    found = (_signed(row) for row in rows)
    return tuple(one.permit.id for one in found if any((s.site, s.key) == (site, key) for s in one.signatures))


def gone(tx: Connection, permit: str) -> frozenset[SiteId]:
    """The participants that have ended a valid permit at their place. Raises PermitUnknown."""
    known = msgspec.json.decode(_row(tx, permit)["said"], type=list[SiteRefusal])
    return frozenset(one.site for one in known if one.site is not None)


# -- reading


def signed(tx: Connection, permit: str) -> SignedPermit:
    """The permit with the signatures so far. Raises PermitUnknown."""
    return _signed(_row(tx, permit))


def state(tx: Connection, permit: str) -> str:
    """Its state. Raises PermitUnknown."""
    return str(_row(tx, permit)["state"])


def standing(tx: Connection, permit: str) -> Standing:
    """How it stands. Raises PermitUnknown."""
    row = _row(tx, permit)
    found = _signed(row)
    titles = {m.site: m.title for m in members.members(tx)}
    done = {s.site for s in found.signatures}
    return Standing(
        permit=found.permit,
        state=row["state"],
        asked_by=row["asked_by"],
        signed=tuple(titles[s] for s in permits.sites(found.permit) if s in done),
        waiting=tuple(titles[s] for s in permits.sites(found.permit) if s not in done),
        refusals=tuple(msgspec.json.decode(row["said"], type=list[SiteRefusal])),
    )


def standings(tx: Connection) -> tuple[Standing, ...]:
    """All applications, newest first."""
    rows = tx.execute(select(PERMITS.c.permit).order_by(PERMITS.c.at.desc(), PERMITS.c.permit)).scalars()
    return tuple(standing(tx, name) for name in rows)


def data_sets_by_id(tx: Connection) -> tuple[tuple[DataSetId, tuple[SiteId, ...]], ...]:
    """Who offers what."""
    return tuple((described.id, sites) for described, sites in data_sets(tx))


def _own_study(tx: Connection, study: StudyId, by: PersonId) -> None:
    owner = tx.execute(select(PERMITS.c.applicant).where(PERMITS.c.study == study).limit(1)).scalar_one_or_none()
    if owner != by:
        raise Refused(f"study `{printable(study)}` is not yours", do="name a study of your own, or none for a new one")


def _end(tx: Connection, permit: Permit, how: str, post: Post) -> set[SiteId]:
    for name in permits.sites(permit):
        ended = PermitEnded(permit=permit.id, state="revoked" if how == "revoked" else "refused")
        post.send(tx, name, f"{how}/{permit.id}", ended)
    return set(permits.sites(permit))


def _row(tx: Connection, permit: str) -> RowMapping:
    row = tx.execute(select(PERMITS).where(PERMITS.c.permit == permit)).mappings().one_or_none()
    if row is None:
        raise PermitUnknown(permit)
    return row


def _signed(row: RowMapping) -> SignedPermit:
    return msgspec.msgpack.decode(row["content"], type=SignedPermit)
