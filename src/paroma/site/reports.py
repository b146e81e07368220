"""What is read at a site, for its routes and pages. Nothing here writes, and nothing of it leaves the site."""

from collections.abc import Sequence
from datetime import tzinfo

import msgspec
from sqlalchemy import Connection, RowMapping, select

from paroma.data.connect.load import unpack
from paroma.data.consent import state as consent
from paroma.data.consent.statement import EVERYTHING, Choice
from paroma.data.rights import ledger as rights
from paroma.data.rights.ledger import Round, UseOfRecords
from paroma.data.vault.errors import PatientUnknown
from paroma.kernel.ids import PatientId
from paroma.learn.sandbox.walls import Wall
from paroma.site import facts, permits
from paroma.site.parts import Site, missing
from paroma.site.tables import RECEIPTS, RUNS
from paroma.trust.audit import log as logs, witness
from paroma.trust.audit.notes import Note
from paroma.web.kit.pages import clock12, day
from paroma.web.portal.views import PURPOSES, Choice as Chosen, Clinic, Receipt, StudyUse


class LogSeen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A log as the site sees it. trouble: why it is not trusted any more, or empty. cosigned: how many have seen its head."""

    size: int
    trouble: str
    cosigned: int


class RunSeen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run at this site. votes: sets signed in the current attempt."""

    run: str
    permit: str
    over: bool
    step: int
    votes: int
    declined: bool
    lost: bool
    budget: str


class Status(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the site is. budget: head of the ledger, hex. failures: the last troubles of the line."""

    site: str
    title: str
    owner: str
    hub: str
    status: str
    paused: bool
    patients: int
    budget: str
    attestation: str
    log: LogSeen
    federation_log: LogSeen
    walls: tuple[Wall, ...]
    walls_missing: tuple[str, ...]
    runs: tuple[RunSeen, ...]
    failures: tuple[str, ...]


async def status(site: Site) -> Status:
    """How the site is, now."""
    head = await site.ports.blocking.run(site.budget.head)

    def look(tx: Connection) -> Status:
        seen = witness.seen(tx, site.federation.name)
        trouble = witness.trouble(tx, site.federation.name)
        note = site.heads.cosigned
        return Status(
            site=site.membership.site,
            title=site.membership.title,
            owner=site.membership.owner,
            hub=site.membership.hub,
            status="online" if site.online else "offline",
            paused=facts.paused(tx),
            patients=len(site.vault.patients()),
            budget=head,
            attestation="none",
            log=LogSeen(size=logs.checkpoint(tx, logs.SITE).size, trouble="", cosigned=0),
            federation_log=LogSeen(
                size=0 if seen is None else seen.size,
                trouble="" if trouble is None else trouble.what,
                cosigned=len(Note.parse(note).signatures) - 1 if note else 0,
            ),
            walls=site.ports.walls(),
            walls_missing=tuple(sorted(missing(site.ports.walls()))),
            runs=tuple(_run(site, row) for row in tx.execute(select(RUNS).order_by(RUNS.c.opened)).mappings()),
            failures=tuple(site.failures),
        )

    return await site.store.read(look)


def _run(site: Site, row: RowMapping) -> RunSeen:
    state = site.rounds.state_of(row)
    now = state.attempt
    return RunSeen(
        run=state.run,
        permit=row["permit"],
        over=state.over,
        step=now.opening.step if now else 0,
        votes=len(now.votes) if now else 0,
        declined=now is not None and now.declined is not None,
        lost=state.lost,
        budget=now.upload.budget if now and now.upload else "",
    )


# -- patients


def clinic(site: Site) -> Clinic:
    """Whose pages these are."""
    settings = site.settings
    return Clinic(
        name=site.membership.title, phone=settings.phone.strip(), hours=settings.hours.strip(), zone=settings.zone
    )


def require_patient(site: Site, patient: PatientId) -> None:
    """Raise PatientUnknown unless this site has records of the patient."""
    if patient not in site.vault:
        raise PatientUnknown


def name_of(site: Site, patient: PatientId) -> str:
    """The patient's name as their own record has it. Raises PatientUnknown."""
    packed = unpack(site.vault.read(patient))
    for _, content in packed.get("Patient", []):
        names = msgspec.json.decode(content).get("name") or [{}]
        given, family = names[0].get("given") or [], names[0].get("family") or ""
        found = names[0].get("text") or " ".join([*given, family]).strip()
        if found:
            return str(found)[:120]
    return "patient"


def uses(tx: Connection, site: Site, patient: PatientId) -> tuple[StudyUse, ...]:
    """Every study that read this patient, in the words of the portal."""
    found = []
    for use in rights.uses_of(tx, patient):
        entries = _entries(tx, use.run)
        row = tx.execute(select(RUNS).where(RUNS.c.run == use.run)).mappings().one_or_none()
        found.append(
            StudyUse(
                study=use.asked.study,
                title=use.asked.title,
                asked_by=use.asked.asked_by,
                purpose=PURPOSES.get(use.asked.purpose, "computed sums"),
                people=use.people,
                at=use.rounds[-1].read_at,
                rule=_rule(use.rule),
                counted=_counted(use.counted, site.settings.zone),
                entries=tuple(entries),
                genuine=_genuine(site, entries),
                running=row is not None and not row["over"],
            )
        )
    return tuple(found)


def choice(tx: Connection, patient: PatientId) -> Chosen:
    """What the patient has decided about all research, as it stands."""
    newest = next((c for c in consent.choices_of(tx, patient) if c.scope == EVERYTHING), None)
    research = newest is None or newest.says == "yes"
    return Chosen(research=research, sentence="yes to research" if research else "no to all research")


def receipt(tx: Connection, site: Site, choice: Choice) -> Receipt | None:
    """What a patient keeps of a no."""
    row = tx.execute(select(RECEIPTS).where(RECEIPTS.c.number == choice.number)).mappings().one_or_none()
    if row is None:
        return None
    before = tuple(_before(use, choice.at, site.settings.zone) for use in rights.receipt(tx, choice).before)
    return Receipt(
        number=choice.number,
        said_at=choice.at,
        seconds=row["seconds"],
        covers="all research" if choice.scope == EVERYTHING else _covers(tx, choice),
        before=before,
        entry=row["entry"],
        checked=site.heads.hub_saw > row["entry"],
    )


def _before(use: UseOfRecords, at: float, zone: tzinfo) -> str:
    rounds = [r for r in use.counted if (r.committed_at or 0.0) <= at]
    if not rounds:
        return f"“{use.asked.title}” had read your records. It has not counted you."
    last = max(r.committed_at or 0.0 for r in rounds)
    which = f"{_which(rounds)} {_when(rounds, zone)}, finished at {clock12(last, zone)}"
    return f"“{use.asked.title}” counted you in {which}. {'That sum stays' if len(rounds) == 1 else 'Those sums stay'}."


def _covers(tx: Connection, choice: Choice) -> str:
    for row in permits.rows(tx):
        if row["study"] == choice.scope.of:
            return permits.signed_of(row).permit.title
    return "one study"


def _counted(rounds: Sequence[Round], zone: tzinfo) -> str:
    if not rounds:
        return "You have not been counted."
    return f"You were counted in {_which(rounds)} {_when(rounds, zone)}."


def _which(rounds: Sequence[Round]) -> str:
    """`round 7`, or `12 rounds (1 to 7, 9 to 13)`. A round that was repeated counts once."""
    numbers = sorted({r.round for r in rounds})
    if len(numbers) == 1:
        return f"round {numbers[0]}"
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    said = ", ".join(f"{span[0]}" if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans)
    return f"{len(numbers)} rounds ({said})"


def _when(rounds: Sequence[Round], zone: tzinfo) -> str:
    """`on 3 March 2026`, or `from 3 March 2026 to 5 March 2026`."""
    times = [r.committed_at or 0.0 for r in rounds]
    first, last = day(min(times), zone), day(max(times), zone)
    return f"on {first}" if first == last else f"from {first} to {last}"


def _rule(rule: str) -> str:
    if rule.startswith("override"):
        return "The law asks for this study. You cannot say no to it."
    if rule.startswith("no-opt-out"):
        return "Allowed because you have not said no"
    return "Allowed by your yes"


def _entries(tx: Connection, run: str) -> list[int]:
    needle = f'"run":"{run}"'.encode()
    kinds = (b'"kind":"vote-signed"', b'"kind":"contribution-made"')
    head = logs.checkpoint(tx, logs.SITE)
    found = []
    for number, entry in enumerate(logs.entries(tx, logs.SITE, 0, head.size)):
        if needle in entry and any(kind in entry for kind in kinds):
            found.append(number)
    return found[-6:]


def _genuine(site: Site, entries: list[int]) -> bool | None:
    """Whether the hub holds a head of this site's log that contains these entries; None while it does not yet."""
    return True if entries and site.heads.hub_saw > max(entries) else None
