"""What is read about runs and the log, for routes and pages. Nothing here writes."""

from collections.abc import Collection
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, func, select

from paroma.data.catalogue.data_set import DataSet, columns
from paroma.hub import proposals
from paroma.hub.runs import RunUnknown, query_of, result_of
from paroma.hub.tables import RUNS
from paroma.kernel.ids import RunId, SiteId, StudyId
from paroma.learn.algorithms.query import Feature
from paroma.learn.dp import accountants
from paroma.learn.runs import hub as machine, question
from paroma.learn.runs.report import Happened, Progress, Proof, RunReport, SiteSeen, Status
from paroma.trust.audit import checkpoint as checkpoints, cosigning, log as logs
from paroma.trust.audit.cosignatures import quorum
from paroma.trust.audit.notes import Note
from paroma.trust.audit.tiles import CHECKPOINT
from paroma.trust.federation import members
from paroma.trust.federation.members import Member
from paroma.trust.federation.tables import MEMBERS
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import SignedPermit

_TAKE_PART = select(func.count()).select_from(MEMBERS).where(MEMBERS.c.status.in_(sorted(members.TAKES_PART)))

_REVISION = select(RUNS.c.revision, RUNS.c.ended).where(RUNS.c.run == bindparam("this"))


def questions_asked(tx: Connection, permit: str) -> int:
    """How many questions were asked under a permit, in all its runs."""
    rows = tx.execute(select(RUNS.c.machine).where(RUNS.c.permit == permit))
    return sum(machine.unpack(bytes(row.machine)).step for row in rows)


def before_run(tx: Connection, permit: str) -> tuple[SignedPermit, str, DataSet, frozenset[SiteId]]:
    """The permit, its state, its data set, and which of its participants would take part now: online, and still for it."""
    signed = proposals.signed(tx, permit)
    online = {m.site for m in members.members(tx) if m.status == "online"}
    here = frozenset(p.site for p in signed.permit.participants if p.site in online) - proposals.gone(tx, permit)
    return signed, proposals.state(tx, permit), proposals.data_set(tx, signed.permit.data_set), here


def still_signed(tx: Connection, signed: SignedPermit) -> bool:
    """Whether everybody whose signature makes the permit still signs for a site that takes part, as each site checks it."""
    try:
        permits.verify_signatures(signed, members.officer_keys(tx))
    except (permits.PermitInvalid, permits.PermitUnsigned):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a run or a permit is, and the study it belongs to."""

    applicant: str
    study: StudyId


def owner(tx: Connection, run: str) -> Owner | None:
    """Who opened the run; None where there is none."""
    row = tx.execute(select(RUNS.c.permit, RUNS.c.applicant).where(RUNS.c.run == run)).one_or_none()
    return None if row is None else Owner(str(row.applicant), proposals.signed(tx, row.permit).permit.study)


def permit_owner(tx: Connection, permit: str) -> Owner | None:
    """Who applied for the permit; None where there is none."""
    try:
        found = proposals.signed(tx, permit).permit
    except proposals.PermitUnknown:
        return None
    return Owner(found.applicant, found.study)


def runs(tx: Connection) -> list[tuple[RunId, str]]:
    """Every run with whoever opened it, newest first."""
    rows = tx.execute(select(RUNS.c.run, RUNS.c.applicant).order_by(RUNS.c.opened.desc(), RUNS.c.run))
    return [(RunId(row.run), row.applicant) for row in rows]


def revision(tx: Connection, run: RunId) -> tuple[int, bool]:
    """How often a run has changed, and whether it has ended. Raises RunUnknown."""
    row = tx.execute(_REVISION, {"this": run}).one_or_none()
    if row is None:
        raise RunUnknown(run)
    return int(row.revision), row.ended is not None


def report(tx: Connection, run: RunId, connected: Collection[SiteId]) -> RunReport:
    """What a scientist sees of a run. Raises RunUnknown."""
    row = _row(tx, run)
    permit = proposals.signed(tx, row["permit"]).permit
    query = query_of(row)
    state = machine.unpack(row["machine"])
    progress = tuple(msgspec.msgpack.decode(row["progress"], type=list[Progress]))
    story = tuple(msgspec.msgpack.decode(row["story"], type=list[Happened]))
    titles = {m.site: m.title for m in members.members(tx)}
    features = msgspec.convert(columns(proposals.data_set(tx, permit.data_set)), tuple[Feature, ...])
    asking = question.asking(query, features, permit)
    step = question.unpack_step(bytes(row["steps"])) if row["steps"] else asking.first()
    privacy = permit.privacy
    status: Status = row["status"]
    return RunReport(
        run=run,
        permit=permit.id,
        study=permit.study,
        title=permit.title,
        algorithm=str(type(query).__struct_config__.tag),
        query=asking.described(),
        status=status,
        reason=row["reason"],
        opened=row["opened"],
        ended=row["ended"],
        revision=row["revision"],
        step=state.step,
        steps=asking.steps,
        measure=asking.measure(),
        progress=progress,
        result=result_of(row),
        numbers=0 if step is None else sum(field.length for field in asking.layout(step).fields),
        private=privacy is not None,
        epsilon=None if privacy is None else (accountants.spent(privacy, len(progress)) if progress else 0.0),
        delta=None if privacy is None else privacy.delta,
        most_epsilon=None if privacy is None else privacy.epsilon,
        least_owners=permit.least_owners,
        sites=tuple(SiteSeen(title=titles[p.site], online=p.site in connected) for p in permit.participants),
        story=story,
        proof=_proof(tx, story),
    )


class MemberSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A member. seen: seconds since anything was heard of it, 0 while it is connected, None where nobody knows."""

    site: SiteId
    title: str
    owner: str
    status: str
    key: str
    seen: float | None


def seen(member: Member, heard: float | None, now: float) -> MemberSeen:
    """A member, with how long ago it was `heard` (s) by this process. now: unix s."""
    if heard is None and member.status == "offline":
        heard = max(now - member.changed, 0.0)  # `changed` is when it was heard last
    return MemberSeen(
        site=member.site,
        title=member.title,
        owner=member.owner,
        status=member.status,
        key=member.key.thumbprint,
        seen=heard,
    )


def log_file(tx: Connection, path: str) -> bytes:
    """A file of the federation log. `checkpoint` is the largest one that a quorum has cosigned, else the head alone."""
    if path != CHECKPOINT:
        return logs.serve(tx, logs.FEDERATION, path)
    note = cosigning.cosigned_note(tx, logs.FEDERATION, quorum_of(tx))
    return (note or logs.checkpoint(tx, logs.FEDERATION).note).encode()


def quorum_of(tx: Connection) -> int:
    """Cosignatures that make a checkpoint done: a quorum of all members that may take part."""
    n = tx.execute(_TAKE_PART).scalar_one()
    return quorum(n, 0) if n else 1


def _proof(tx: Connection, story: tuple[Happened, ...]) -> Proof | None:
    if not story:
        return None
    last = story[-1].entry
    note = cosigning.cosigned_note(tx, logs.FEDERATION, quorum_of(tx))
    cosigned = None
    if note is not None and checkpoints.peek(note)[1] > last:
        cosigned = len(Note.parse(note).signatures) - 1  # beside the log's own
    return Proof(first=story[0].entry, last=last, cosigned=cosigned)


def _row(tx: Connection, run: str) -> RowMapping:
    row = tx.execute(select(RUNS).where(RUNS.c.run == run)).mappings().one_or_none()
    if row is None:
        raise RunUnknown(run)
    return row
