"""Permits at a site: what is asked of it, what its officer signed, and which permits hold, by its own check of every signature."""

import functools

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, select, update

from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import PermitId, PersonId, SiteId, printable
from paroma.kernel.store.database import upsert
from paroma.kernel.wire import framing
from paroma.learn.flower import fab
from paroma.site import facts
from paroma.site.gate import HUB, Gate
from paroma.site.tables import BUNDLES, PERMITS
from paroma.trust.audit.journal import Journal
from paroma.trust.channel import outbox
from paroma.trust.federation import members
from paroma.trust.permit import permit as permits
from paroma.trust.permit.messages import PermitEnded, PermitIssued, PermitProposed, PermitRefused, PermitSigned
from paroma.trust.permit.permit import Permit, PermitInvalid, Signature, SignedPermit
from paroma.trust.policy.facts import Entity

LONGEST_REASON = 300  # characters

_PERMIT = select(PERMITS).where(PERMITS.c.permit == bindparam("name"))


class PermitNotHere(Refused):
    """This site knows no such permit, or it does not hold."""

    def __init__(self, permit: str) -> None:
        super().__init__(
            f"permit `{printable(permit)}` does not hold at this site", do="ask for what the site's officer has signed"
        )


class NotValidYet(Refused):
    """Only a valid permit is ended."""

    def __init__(self, permit: str, state: str) -> None:
        super().__init__(
            f"permit `{printable(permit)}` is {state} here, not valid: there is nothing to end",
            do="leave it" if state == "refused" else "refuse it: `paroma site refuse`",
        )


class BundleForeign(Refused):
    """The app that came is not the one that the permit names."""

    def __init__(self) -> None:
        super().__init__(
            "the app that came is not the one that the permit names", do="apply anew with the app's digest"
        )


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an officer sees. reasons: why policy refused. patients: how many may be used today, for the officer's eyes alone."""

    permit: Permit
    asked_by: str
    benefit: str
    state: str
    reasons: tuple[str, ...]
    patients: int


def proposed(tx: Connection, said: PermitProposed, me: SiteId, gate: Gate, journal: Journal, now: float) -> None:
    """The hub asks. Policy has the first look; what it refuses never reaches the officer, and the hub is told why."""
    permit = said.permit
    permits.check(permit)
    decision = gate.decide_in(tx, HUB, facts.consider(tx, permit), Entity("Study", permit.study))
    why = decision.reasons[0]
    row = {
        "permit": permit.id,
        "study": permit.study,
        "content": msgspec.msgpack.encode(SignedPermit(permit=permit, signatures=())),
        "asked_by": said.asked_by,
        "benefit": said.benefit,
        "state": "waiting" if decision.allowed else "refused",
        "reasons": msgspec.json.encode([] if decision.allowed else [why.because, why.to_change]).decode(),
        "at": now,
    }
    try:
        _keep_app(tx, said)
    except ParomaError as problem:
        row |= {"state": "refused", "reasons": msgspec.json.encode([problem.message, problem.do]).decode()}
        tx.execute(upsert(tx, PERMITS).values(row).on_conflict_do_nothing())
        refused = {"policy": "app", "because": problem.message}
        journal.write(tx, "application-refused", permit=permits.digest(permit), **refused)
        _tell_refused(tx, permit, me, **refused, to_change=problem.do, now=now)
        return
    tx.execute(upsert(tx, PERMITS).values(row).on_conflict_do_nothing())
    if not decision.allowed:
        journal.write(tx, "application-refused", permit=permits.digest(permit), policy=why.policy, because=why.because)
        _tell_refused(tx, permit, me, policy=why.policy, because=why.because, to_change=why.to_change, now=now)


def sign(tx: Connection, signature: Signature, permit: PermitId, me: SiteId, journal: Journal, now: float) -> None:
    """The officer's signature, made with the officer's own key: checked, logged, and sent. Raises PermitNotHere, PermitInvalid..."""
    row = _row(tx, permit)
    if row["state"] not in {"waiting", "signed"}:
        raise PermitNotHere(permit)
    asked = _signed(row).permit
    one = SignedPermit(permit=asked, signatures=(signature,))
    if signature.site != me:
        raise PermitInvalid("the signature is for another site", do="sign for this site")
    keys = {me: {o.key.thumbprint: o.key for o in members.officers(tx, me) if o.ended is None}}
    permits.verify_signatures(one, keys, quorum=1)
    if row["state"] == "signed":
        return
    tx.execute(update(PERMITS).where(PERMITS.c.permit == permit).values(state="signed"))
    journal.write(tx, "permit-signed", permit=permits.digest(asked), officer=signature.officer, key=signature.key)
    outbox.send(tx, f"signed/{permit}", framing.pack(PermitSigned(permit=permit, signature=signature)), now=now)


def refuse(
    tx: Connection, permit: PermitId, reason: str, me: SiteId, journal: Journal, now: float, *, by: PersonId
) -> None:
    """The officer says no, in own words."""
    row = _row(tx, permit)
    reason = printable(reason, longest=LONGEST_REASON)  # it goes to terminals and pages of others
    if row["state"] not in {"waiting", "signed"}:
        raise PermitNotHere(permit)
    tx.execute(
        update(PERMITS)
        .where(PERMITS.c.permit == permit)
        .values(state="refused", reasons=msgspec.json.encode([reason]).decode())
    )
    asked = _signed(row).permit
    journal.write(tx, "application-refused", permit=permits.digest(asked), policy="officer", because=reason, by=by)
    _tell_refused(tx, asked, me, policy="officer", because=reason, to_change="talk with the site's officer", now=now)


def issued(tx: Connection, said: PermitIssued, me: SiteId, journal: Journal, now: float) -> None:
    """Everybody signed, says the hub: this site checks each signature with the keys that it knows itself.

    Raises PermitUnsigned where an officer is not (yet) known from the federation log: follow it, then call again.
    """
    permit = said.signed.permit
    permits.verify(said.signed, members.officer_keys(tx), now)
    known = tx.execute(select(PERMITS).where(PERMITS.c.permit == permit.id)).mappings().one_or_none()
    if me not in permits.sites(permit):
        raise PermitInvalid("this site is no participant of the permit", do="send it to its participants")
    if known is not None and (_signed(known).permit != permit or known["state"] in {"revoked", "refused"}):
        raise PermitInvalid(
            "the permit is not what this site's officer was shown", do="issue what was signed, or ask again"
        )
    row = {
        "permit": permit.id,
        "study": permit.study,
        "content": msgspec.msgpack.encode(said.signed),
        "asked_by": said.asked_by,
        "benefit": "",
        "state": "valid",
        "reasons": "[]",
        "at": now,
    }
    changes = {"content": row["content"], "state": "valid"}
    tx.execute(upsert(tx, PERMITS).values(row).on_conflict_do_update(index_elements=["permit"], set_=changes))
    if known is None or known["state"] != "valid":
        journal.write(tx, "permit-valid", permit=permits.digest(permit), study=permit.study)


def ended(tx: Connection, permit: PermitId, state: str, journal: Journal, now: float) -> None:
    """Nothing more under this permit, whoever says so: stopping needs no proof."""
    row = tx.execute(select(PERMITS).where(PERMITS.c.permit == permit)).mappings().one_or_none()
    if row is None or row["state"] in {"revoked", "refused"}:
        return
    tx.execute(update(PERMITS).where(PERMITS.c.permit == permit).values(state=state, ended=now))
    journal.write(tx, "permit-ended", permit=permits.digest(_signed(row).permit), state=state)


def end(tx: Connection, permit: PermitId, reason: str, journal: Journal, now: float, *, by: PersonId) -> float | None:
    """The officer ends what was valid, at this site; the hub is told why. When it had been ended before, else None.

    Raises PermitNotHere, NotValidYet.
    """
    row = _row(tx, permit)
    if row["state"] == "revoked":
        return float(row["ended"])
    if row["state"] != "valid":
        raise NotValidYet(permit, row["state"])
    reason = printable(reason, longest=LONGEST_REASON)
    tx.execute(update(PERMITS).where(PERMITS.c.permit == permit).values(state="revoked", ended=now))
    digest = permits.digest(_signed(row).permit)
    journal.write(tx, "permit-ended", permit=digest, state="revoked", because=reason, by=by)
    said = PermitEnded(permit=permit, state="revoked", reason=reason)
    outbox.send(tx, f"ended/{permit}", framing.pack(said), now=now)
    return None


def require_valid(tx: Connection, signed: SignedPermit, now: float) -> Permit:
    """The permit that a run is under: exactly the one that this site verified, and within its term. Raises PermitNotHere..."""
    row = tx.execute(select(PERMITS).where(PERMITS.c.permit == signed.permit.id)).mappings().one_or_none()
    if row is None or row["state"] != "valid" or _signed(row).permit != signed.permit:
        raise PermitNotHere(signed.permit.id)
    permits.verify(_signed(row), members.officer_keys(tx), now)
    return signed.permit


def permit_of(tx: Connection, permit: str) -> Permit:
    """A permit that this site knows. Raises PermitNotHere."""
    return _signed(_row(tx, permit)).permit


def bundle_of(tx: Connection, permit: Permit) -> bytes | None:
    """The app that a permit names, if it names one and it came."""
    found = tx.execute(select(BUNDLES.c.content).where(BUNDLES.c.code == permit.code)).scalar_one_or_none()
    return None if found is None else bytes(found)


def asked_by(tx: Connection, permit: str) -> str:
    """Who asked for it, as a patient reads it."""
    return str(_row(tx, permit)["asked_by"])


def rows(tx: Connection) -> list[RowMapping]:
    """All permits that were ever asked for here, newest first."""
    return list(tx.execute(select(PERMITS).order_by(PERMITS.c.at.desc(), PERMITS.c.permit)).mappings())


def signed_of(row: RowMapping) -> SignedPermit:
    """The permit in a row, with its signatures."""
    return _signed(row)


def _keep_app(tx: Connection, said: PermitProposed) -> None:
    """Read the app strictly, and keep it under its digest. Raises BundleForeign, FabInvalid."""
    code = said.permit.code
    if code is None:
        return
    if fab.digest(said.bundle) != code:
        raise BundleForeign
    fab.read(said.bundle)
    tx.execute(upsert(tx, BUNDLES).values(code=code, content=said.bundle).on_conflict_do_nothing())


def _tell_refused(
    tx: Connection, permit: Permit, me: SiteId, *, policy: str, because: str, to_change: str, now: float
) -> None:
    said = PermitRefused(permit=permit.id, site=me, policy=policy, because=because, to_change=to_change)
    outbox.send(tx, f"refused/{permit.id}", framing.pack(said), now=now)


def _row(tx: Connection, permit: str) -> RowMapping:
    row = tx.execute(_PERMIT, {"name": permit}).mappings().one_or_none()
    if row is None:
        raise PermitNotHere(permit)
    return row


def _signed(row: RowMapping) -> SignedPermit:
    return _read(bytes(row["content"]))


@functools.lru_cache(
    maxsize=256
)  # the same bytes are the same permit; whether it is valid is asked of its row, every time
def _read(content: bytes) -> SignedPermit:
    return msgspec.msgpack.decode(content, type=SignedPermit)
