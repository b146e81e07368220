"""The hub in a run: a pure machine, `step(state, event, crypto) -> (state, effects)`, with the honest strategy.

The program writes the new state durably and only then does what the effects say; what it sends goes out at least
once, in order. Duplicates, late and false messages change nothing; a false one gives a `Suspected`. Time comes in as
`Tick`.

Strategy: wait for the uploads until the deadline; propose all of them; leave out who declines or is silent, and never
grow a set again; hand out the complete set; collect answers until the masks of U can be removed. A new attempt only
while no complete set was handed out: afterwards the only way is forward. With fewer than a third of the sites lost,
unmasking always succeeds, because votes carry shares of the seeds with those left out. Nobody trusts the hub to
follow this: `site` holds whatever it does.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import RunId, SiteId
from paroma.learn.runs import rules
from paroma.learn.runs.crypto import HubCrypto
from paroma.learn.runs.messages import (
    AllCiphertexts,
    AllKeys,
    Answer,
    Box,
    Ciphertexts,
    Closed,
    Complete,
    Decline,
    FromHub,
    FromSite,
    Member,
    OpenAttempt,
    Opening,
    PairSeed,
    Participant,
    Proposal,
    Ready,
    RunInvitation,
    Signed,
    SignedKeys,
    SitsOut,
    StaysOut,
    Stopped,
    Uploaded,
    Vote,
    answer_statement,
    beside_statement,
    decline_statement,
    entry_bytes,
    keys_statement,
    sha256,
    sum_digest,
    transcript,
    upload_hash,
    upload_statement,
    vote_statement,
)
from paroma.learn.secagg.shamir import threshold

SET_UP = frozenset({"keys", "ciphertexts", "ready"})  # the stages before the first question
MOST_TURNS = 4  # for which the set-up waits on while too few have answered, each `Pace.set_up` long, over all stages
MOST_SUBSETS = 300  # subsets of shares that are tried when some of them are false
COMMITMENT_BYTES = 32
SALT = b"paroma/sum-salt/v1\n"


# --- what is kept
# ------------------------------------------------------------------------------------------------------


class Pace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each stage waits for silent sites, s; `patience` times the answers are asked for again before the run
    fails.
    """

    set_up: float = 30.0
    upload: float = 120.0
    vote: float = 10.0
    answer: float = 10.0
    patience: int = 30


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the run is under: the permit's digest and numbers, and whom it invites (sorted by site)."""

    permit: str
    m: int
    c: int
    attempts: int
    questions: int
    participants: tuple[Participant, ...]
    pace: Pace = Pace()


class Round(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt. members: the set that is proposed, or complete. complete: handed out, byte for byte, by receiver's
    place.

    uploads are without their masked bytes, which the program spools. votes: of `members` only.
    """

    opening: Opening
    entry: str
    uploads: tuple[Uploaded, ...] = ()
    sits_out: tuple[SiteId, ...] = ()
    declined: tuple[SiteId, ...] = ()
    members: tuple[Member, ...] = ()
    votes: tuple[Vote, ...] = ()
    answers: tuple[Answer, ...] = ()
    asked_again: int = 0


class HubState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the hub remembers of a run. phase says what it waits for; `deadline` (unix s) until when.

    keys, ciphertexts, ready: set-up; turns: how often its deadline was put off. stays_out: who refused the invitation.
    adding: the program adds up. idle: for the next question.
    """

    run: RunId
    plan: Plan
    phase: str
    deadline: float | None
    revision: int = 1
    keys: tuple[SignedKeys, ...] = ()
    ciphertexts: tuple[Ciphertexts, ...] = ()
    ready: tuple[Ready, ...] = ()
    transcript: str = ""
    turns: int = 0
    able: tuple[Participant, ...] = ()
    away: tuple[SiteId, ...] = ()
    stays_out: tuple[SiteId, ...] = ()
    step: int = 0
    request: bytes = b""
    size: int = 0
    round: Round | None = None


# --- what happens, and what is to be done
# ------------------------------------------------------------------------------


class Received(Struct, frozen=True, kw_only=True, tag="received", forbid_unknown_fields=True):
    """A message came from `sender`, as the channel proved. An upload is told when its bytes are spooled, hash and
    size checked.
    """

    sender: SiteId
    message: FromSite


class Ask(Struct, frozen=True, kw_only=True, tag="ask", forbid_unknown_fields=True):
    """The next question: the algorithm's request, and the size of a contribution on the wire (bytes). Only while
    idle.
    """

    request: bytes
    size: int


class Logged(Struct, frozen=True, kw_only=True, tag="logged", forbid_unknown_fields=True):
    """The opening entry is in the federation log. checkpoint: one that covers it, cosigned by a quorum."""

    entry: str
    checkpoint: str


class Tick(Struct, frozen=True, kw_only=True, tag="tick", forbid_unknown_fields=True):
    """Time passes. Told at the deadline, at the latest; more often does no harm."""


class Away(Struct, frozen=True, kw_only=True, tag="away", forbid_unknown_fields=True):
    """A site is offline, quarantined or has left: no use to wait for it. It counts again when something comes from
    it.
    """

    site: SiteId


class Summed(Struct, frozen=True, kw_only=True, tag="summed", forbid_unknown_fields=True):
    """The program added up and removed the masks. total: wire bytes."""

    entry: str
    total: bytes


class Finish(Struct, frozen=True, kw_only=True, tag="finish", forbid_unknown_fields=True):
    """No further question, or no further way: the run ends."""

    finished: bool
    reason: str


Event = Received | Ask | Logged | Tick | Away | Summed | Finish


class Send(Struct, frozen=True, kw_only=True, tag="send", forbid_unknown_fields=True):
    """Send to one site."""

    to: SiteId
    message: FromHub


class Able(Struct, frozen=True, kw_only=True, tag="able", forbid_unknown_fields=True):
    """The set-up is done with these; the first question may be asked."""

    participants: tuple[Participant, ...]


class Log(Struct, frozen=True, kw_only=True, tag="log", forbid_unknown_fields=True):
    """Append these bytes to the federation log, have the checkpoint cosigned, then tell `Logged`."""

    entry: str
    data: bytes


class AddUp(Struct, frozen=True, kw_only=True, tag="add-up", forbid_unknown_fields=True):
    """Add up the spooled uploads of `members`, remove the masks by `secagg.unmask.total`, then tell `Summed`.

    masked: for each member the hash (hex) that names its bytes. self_seeds: of each member. pair_seeds: (member,
    outside, seed).
    """

    entry: str
    members: tuple[Member, ...]
    masked: tuple[str, ...]
    self_seeds: tuple[PairSeed, ...]
    pair_seeds: tuple[tuple[SiteId, SiteId, bytes], ...]


class Answered(Struct, frozen=True, kw_only=True, tag="answered", forbid_unknown_fields=True):
    """The question is answered; spooled uploads of this attempt may go. digest: of the sum, for the log."""

    step: int
    entry: str
    members: tuple[Member, ...]
    digest: str
    total: bytes


class Failed(Struct, frozen=True, kw_only=True, tag="failed", forbid_unknown_fields=True):
    """The run ends without having answered everything. why: a sentence for the scientist."""

    why: str


class Suspected(Struct, frozen=True, kw_only=True, tag="suspected", forbid_unknown_fields=True):
    """One of these sites sent something false. why: what."""

    sites: tuple[SiteId, ...]
    why: str


Effect = Send | Able | Log | AddUp | Answered | Failed | Suspected
Outcome = tuple[HubState, tuple[Effect, ...]]


# --- the machine
# -------------------------------------------------------------------------------------------------------


def begin(run: RunId, plan: Plan, permit: bytes, query: bytes, crypto: HubCrypto) -> Outcome:
    """Invite everybody. permit: the signed permit's bytes. Raises Refused if the participants cannot answer under
    it.
    """
    sites = [p.site for p in plan.participants]
    if sites != sorted(set(sites)) or not rules.fits(plan.participants, m=plan.m, c=plan.c):
        raise Refused(
            "these participants cannot answer under this permit", do="wait for more sites, or apply for other numbers"
        )
    if any(crypto.thumbprint(p.site) != p.key for p in plan.participants):
        raise Refused("a participant's key is not the one that the log admits", do="read the members again")
    state = HubState(run=run, plan=plan, phase="keys", deadline=crypto.now() + plan.pace.set_up)
    invitation = RunInvitation(run=run, permit=permit, query=query, participants=plan.participants)
    return state, tuple(Send(to=site, message=invitation) for site in sites)


def step(state: HubState, event: Event, crypto: HubCrypto) -> Outcome:
    """What the hub remembers after `event`, and what is to be done once that is durable. Raises Refused for a
    misplaced `Ask`.
    """
    after, effects = _step(state, event, crypto)
    return (state if after is state else replace(after, revision=state.revision + 1)), effects


def _step(state: HubState, event: Event, crypto: HubCrypto) -> Outcome:
    if state.phase == "over":
        return state, ()
    match event:
        case Received():
            return _received(state, event, crypto)
        case Tick():
            late = state.deadline is not None and crypto.now() >= state.deadline
            return _late(state, crypto) if late else (state, ())
        case Away():
            if event.site in state.away:
                return state, ()
            return _ahead(replace(state, away=(*state.away, event.site)), crypto)
        case Ask():
            if state.phase != "idle" or state.step >= state.plan.questions:
                raise Refused(
                    "a run answers one question after the other, as many as its permit reserves", do="wait, or finish"
                )
            return _open(replace(state, step=state.step + 1, request=event.request, size=event.size), 1, crypto)
        case Logged():
            return _logged(state, event, crypto)
        case Summed():
            return _summed(state, event)
        case Finish():
            return _end(state, finished=event.finished, why=event.reason)


def _received(state: HubState, event: Received, crypto: HubCrypto) -> Outcome:
    if event.sender not in {p.site for p in state.plan.participants}:
        return state, ()
    if event.sender in state.away:
        state = replace(state, away=tuple(site for site in state.away if site != event.sender))
    message = event.message
    said = message.core.site if isinstance(message, Uploaded) else message.site
    if said != event.sender:
        return state, (Suspected(sites=(event.sender,), why="it spoke in another's name"),)
    match message:
        case SignedKeys():
            return _keys(state, message, crypto)
        case StaysOut():
            return _stays_out(state, message, crypto)
        case Ciphertexts():
            return _ciphertexts(state, message, crypto)
        case Ready():
            return _ready(state, message, crypto)
        case Uploaded():
            return _uploaded(state, message, crypto)
        case SitsOut():
            return _sits_out(state, message, crypto)
        case Vote():
            return _vote(state, message, crypto)
        case Decline():
            return _declined(state, message, crypto)
        case Answer():
            return _answered(state, message, crypto)


def _ahead(state: HubState, crypto: HubCrypto) -> Outcome:
    """Go on if nobody is left to wait for."""
    here = {p.site for p in state.plan.participants} - set(state.away) - set(state.stays_out)
    if state.phase in SET_UP:
        came, awaited = _came(state)
        ahead = here & awaited <= came and rules.fits(_only(state, came), m=state.plan.m, c=state.plan.c)
        return _set_up_further(state, crypto) if ahead else (state, ())
    now = state.round
    if state.phase == "uploads" and now is not None:
        if state.away and not _enough_here(state, now.opening):
            return _end(
                state, finished=False, why=TOO_FEW_HERE
            )  # who is here would compute, and be debited, for nothing
        said = {u.core.site for u in now.uploads} | set(now.sits_out) | set(now.declined) | set(state.away)
        if {p.site for p in now.opening.participants} <= said:
            return _propose(state, now, now.uploads, crypto)
    if state.phase == "voting" and now is not None and (gone := set(state.away) & set(rules.sites_of(now.members))):
        gone -= {v.site for v in now.votes}
        if gone:
            return _shrink(state, now, gone, crypto)
    return state, ()


def _late(state: HubState, crypto: HubCrypto) -> Outcome:
    """The deadline has passed: go on without the silent."""
    now = state.round
    if state.phase in SET_UP:
        enough = rules.fits(_only(state, _came(state)[0]), m=state.plan.m, c=state.plan.c)
        if enough or state.turns >= MOST_TURNS:
            return _set_up_further(state, crypto)
        # nothing was read, debited or disclosed: waiting costs nothing, and a request may take longer than a turn to be missed
        return replace(state, turns=state.turns + 1, deadline=crypto.now() + state.plan.pace.set_up), ()
    if state.phase == "uploads" and now is not None:
        return _propose(state, now, now.uploads, crypto)
    if state.phase == "voting" and now is not None:
        silent = set(rules.sites_of(now.members)) - {v.site for v in now.votes}
        return _shrink(state, now, silent, crypto)
    if state.phase == "answers" and now is not None:
        if now.asked_again >= state.plan.pace.patience:
            return _end(
                state, finished=False, why="too few sites answer, and what they committed to cannot be repeated"
            )
        asked = replace(
            state, round=replace(now, asked_again=now.asked_again + 1), deadline=crypto.now() + state.plan.pace.answer
        )
        silent = {p.site for p in now.opening.participants} - {a.site for a in now.answers}
        return asked, tuple(effect for effect in _completes(now) if effect.to in silent)
    return state, ()


TOO_FEW_SET_UP = "too few sites took part in setting up the run"
TOO_FEW_HERE = "too few of its hospitals are connected to answer a question; open another run once they are back"
NOBODY_LEFT = (
    "too few hospitals took part, in all the attempts that the permit reserves for a question; each decides on its own"
    " and says why in its own log only, for instance when so few patients are left that a figure would tell of one"
)


def _end(state: HubState, *, finished: bool, why: str) -> Outcome:
    over = replace(state, phase="over", deadline=None)
    stopped = Stopped(run=state.run, finished=finished, reason=why)
    told = tuple(Send(to=p.site, message=stopped) for p in state.plan.participants)
    return over, (told if finished else (*told, Failed(why=why)))


# --- set-up
# ------------------------------------------------------------------------------------------------------------


def _keys(state: HubState, message: SignedKeys, crypto: HubCrypto) -> Outcome:
    if state.phase != "keys" or any(k.site == message.site for k in state.keys):
        return state, ()
    if message.run != state.run or not crypto.verify(
        message.site, keys_statement(message, state.plan.permit), message.signature
    ):
        return state, (Suspected(sites=(message.site,), why="its keys are not signed for this run"),)
    keys = tuple(sorted((*state.keys, message), key=lambda k: k.site))
    return _ahead(replace(state, keys=keys), crypto)


def _stays_out(state: HubState, message: StaysOut, crypto: HubCrypto) -> Outcome:
    """Nobody waits for a site that refused the invitation; the run ends where too few are left to take part."""
    said = set(state.stays_out) | {k.site for k in state.keys}
    if state.phase != "keys" or message.run != state.run or message.site in said:
        return state, ()
    after = replace(state, stays_out=(*state.stays_out, message.site))
    left = {p.site for p in state.plan.participants} - set(after.stays_out)
    if not rules.fits(_only(after, left), m=state.plan.m, c=state.plan.c):
        return _end(after, finished=False, why=TOO_FEW_SET_UP)
    return _ahead(after, crypto)


def _came(state: HubState) -> tuple[set[SiteId], set[SiteId]]:
    """Who has sent what this stage of the set-up waits for, and of whom it is awaited."""
    match state.phase:
        case "keys":
            return {k.site for k in state.keys}, {p.site for p in state.plan.participants}
        case "ciphertexts":
            return {c.site for c in state.ciphertexts}, {k.site for k in state.keys}
        case _:
            return {r.site for r in state.ready}, {c.site for c in state.ciphertexts}


def _set_up_further(state: HubState, crypto: HubCrypto) -> Outcome:
    match state.phase:
        case "keys":
            return _hand_keys(state, crypto)
        case "ciphertexts":
            return _hand_ciphertexts(state, crypto)
        case _:
            return _set_up(state)


def _hand_keys(state: HubState, crypto: HubCrypto) -> Outcome:
    if not rules.fits(_only(state, {k.site for k in state.keys}), m=state.plan.m, c=state.plan.c):
        return _end(state, finished=False, why=TOO_FEW_SET_UP)
    everybody = AllKeys(run=state.run, keys=state.keys)
    after = replace(
        state, phase="ciphertexts", transcript=transcript(state.keys), deadline=crypto.now() + state.plan.pace.set_up
    )
    return after, tuple(Send(to=k.site, message=everybody) for k in state.keys)


def _ciphertexts(state: HubState, message: Ciphertexts, crypto: HubCrypto) -> Outcome:
    if state.phase != "ciphertexts" or message.transcript != state.transcript:
        return state, ()
    if any(c.site == message.site for c in state.ciphertexts) or any(
        item.sender != message.site for item in message.items
    ):
        return state, ()
    return _ahead(replace(state, ciphertexts=(*state.ciphertexts, message)), crypto)


def _hand_ciphertexts(state: HubState, crypto: HubCrypto) -> Outcome:
    came = {c.site for c in state.ciphertexts}
    if not rules.fits(_only(state, came), m=state.plan.m, c=state.plan.c):
        return _end(state, finished=False, why=TOO_FEW_SET_UP)
    sends = tuple(
        Send(
            to=site,
            message=AllCiphertexts(
                run=state.run,
                transcript=state.transcript,
                items=tuple(item for c in state.ciphertexts for item in c.items if item.receiver == site),
            ),
        )
        for site in sorted(came)
    )
    return replace(state, phase="ready", deadline=crypto.now() + state.plan.pace.set_up), sends


def _ready(state: HubState, message: Ready, crypto: HubCrypto) -> Outcome:
    if (
        state.phase != "ready"
        or message.transcript != state.transcript
        or any(r.site == message.site for r in state.ready)
    ):
        return state, ()
    return _ahead(replace(state, ready=(*state.ready, message)), crypto)


def _set_up(state: HubState) -> Outcome:
    """Take those who all share secrets with each other; of a pair without one, leave out the one in more such pairs."""
    sites = {r.site for r in state.ready}
    broken = {frozenset((r.site, other)) for r in state.ready for other in r.without if other in sites}
    effects: tuple[Effect, ...] = tuple(
        Suspected(sites=tuple(sorted(pair)), why="they could not agree on a secret")
        for pair in sorted(broken, key=sorted)
    )
    while broken:
        worst = max(sorted(sites), key=lambda site: sum(site in pair for pair in broken))
        sites.discard(worst)
        broken = {pair for pair in broken if worst not in pair}
    able = _only(state, sites)
    if not rules.fits(able, m=state.plan.m, c=state.plan.c):
        over, told = _end(state, finished=False, why=TOO_FEW_SET_UP)
        return over, (*effects, *told)
    return replace(state, phase="idle", deadline=None, able=able), (*effects, Able(participants=able))


def _only(state: HubState, sites: Iterable[SiteId]) -> tuple[Participant, ...]:
    chosen = set(sites)
    return tuple(p for p in state.plan.participants if p.site in chosen)


# --- one attempt
# -------------------------------------------------------------------------------------------------------


def _open(state: HubState, attempt: int, crypto: HubCrypto) -> Outcome:
    if attempt > state.plan.attempts:
        return _end(state, finished=False, why=NOBODY_LEFT)
    t = threshold(len(state.able))
    opening = Opening(
        run=state.run,
        step=state.step,
        attempt=attempt,
        permit=state.plan.permit,
        request=sha256(state.request),
        transcript=state.transcript,
        participants=state.able,
        t=t,
        m=state.plan.m,
        c=state.plan.c,
        least=max(t, state.plan.m + state.plan.c),
        at=crypto.now(),
    )
    if not _enough_here(state, opening):
        return _end(state, finished=False, why=TOO_FEW_HERE)
    data = entry_bytes(opening)
    now = Round(opening=opening, entry=sha256(data))
    return replace(state, phase="logging", deadline=None, round=now), (Log(entry=now.entry, data=data),)


def _enough_here(state: HubState, opening: Opening) -> bool:
    """Whether the participants that are not away are enough for a set."""
    return rules.large_enough(opening, tuple(p.site for p in opening.participants if p.site not in state.away))


def _logged(state: HubState, event: Logged, crypto: HubCrypto) -> Outcome:
    now = state.round
    if state.phase != "logging" or now is None or event.entry != now.entry:
        return state, ()
    opened = OpenAttempt(entry=entry_bytes(now.opening), request=state.request, checkpoint=event.checkpoint)
    after = replace(state, phase="uploads", deadline=crypto.now() + state.plan.pace.upload)
    return after, tuple(Send(to=p.site, message=opened) for p in now.opening.participants)


def _uploaded(state: HubState, message: Uploaded, crypto: HubCrypto) -> Outcome:
    now, core = state.round, message.core
    if (
        state.phase != "uploads"
        or now is None
        or core.entry != now.entry
        or any(u.core.site == core.site for u in now.uploads)
    ):
        return state, ()
    participants = tuple(p.site for p in now.opening.participants)
    if core.site not in participants:
        return state, ()
    whole = (
        core.size == state.size
        and len(core.shares) == len(core.pairs) == COMMITMENT_BYTES * len(participants)
        and len(core.seed) == COMMITMENT_BYTES
        and tuple(box.site for box in message.boxes) == participants
        and (message.masked is None or (len(message.masked) == core.size and sha256(message.masked) == core.masked))
    )
    if not whole or not crypto.verify(core.site, upload_statement(message), message.signature):
        return state, (Suspected(sites=(core.site,), why="its upload is malformed, of another size, or not signed"),)
    kept = replace(message, masked=None)
    uploads = tuple(sorted((*now.uploads, kept), key=lambda u: u.core.site))
    return _ahead(replace(state, round=replace(now, uploads=uploads)), crypto)


def _sits_out(state: HubState, message: SitsOut, crypto: HubCrypto) -> Outcome:
    now = state.round
    if state.phase != "uploads" or now is None or message.entry != now.entry or message.site in now.sits_out:
        return state, ()
    return _ahead(replace(state, round=replace(now, sits_out=(*now.sits_out, message.site))), crypto)


def _propose(state: HubState, now: Round, uploads: tuple[Uploaded, ...], crypto: HubCrypto) -> Outcome:
    """Propose these uploads, without those of sites that declined or are away; a new attempt if too few are left."""
    gone = set(now.declined) | set(state.away)
    kept = [u for u in uploads if u.core.site not in gone]
    effects: list[Effect] = []
    while unequal := _unequal(now.opening, kept):
        # two ends of a pair committed to different seeds, so one of them lies: their masks would not cancel
        worst = max((u.core.site for u in kept), key=lambda site: sum(site in pair for pair in unequal))
        effects += [
            Suspected(sites=pair, why="they committed to different seeds for one pair")
            for pair in unequal
            if worst in pair
        ]
        kept = [u for u in kept if u.core.site != worst]
    members = tuple(Member(site=u.core.site, upload=upload_hash(u.core)) for u in kept)
    if not rules.well_formed(now.opening, members):
        again, more = _open(replace(state, round=now), now.opening.attempt + 1, crypto)
        return again, (*effects, *more)
    proposed = replace(now, members=members, votes=())
    after = replace(state, phase="voting", round=proposed, deadline=crypto.now() + state.plan.pace.vote)
    for u in kept:
        receiver = u.core.site
        boxes = tuple(_from(other.core.site, other.boxes, receiver) for other in kept)
        proposal = Proposal(entry=now.entry, members=members, boxes=boxes, checkpoint=crypto.checkpoint())
        effects.append(Send(to=receiver, message=proposal))
    return after, tuple(effects)


def _from(sender: SiteId, boxes: Iterable[Box], receiver: SiteId) -> Box:
    """The box for `receiver`, relabelled with its sender."""
    return Box(site=sender, sealed=next(box.sealed for box in boxes if box.site == receiver))


def _unequal(opening: Opening, uploads: Iterable[Uploaded]) -> list[tuple[SiteId, SiteId]]:
    place = {p.site: at for at, p in enumerate(opening.participants)}
    return [
        (a.core.site, b.core.site)
        for a, b in itertools.combinations(uploads, 2)
        if _at(a.core.pairs, place[b.core.site]) != _at(b.core.pairs, place[a.core.site])
    ]


def _at(commitments: bytes, place: int) -> bytes:
    return commitments[place * COMMITMENT_BYTES : (place + 1) * COMMITMENT_BYTES]


def _shrink(state: HubState, now: Round, without: set[SiteId], crypto: HubCrypto) -> Outcome:
    """Propose the set without these: a smaller one, with no new upload. Never back to a larger."""
    left = set(rules.sites_of(now.members)) - without
    return _propose(state, now, tuple(u for u in now.uploads if u.core.site in left), crypto)


def _vote(state: HubState, message: Vote, crypto: HubCrypto) -> Outcome:
    now = state.round
    if state.phase != "voting" or now is None or message.entry != now.entry or message.members != now.members:
        return state, ()
    if message.site not in rules.sites_of(now.members) or any(v.site == message.site for v in now.votes):
        return state, ()
    participants = tuple(p.site for p in now.opening.participants)
    expected = participants if len(now.members) < len(participants) else ()
    signed = crypto.verify(message.site, vote_statement(now.entry, now.members), message.signature) and crypto.verify(
        message.site, beside_statement(message), message.beside
    )
    if not signed or tuple(box.site for box in message.boxes) != expected:
        return state, (Suspected(sites=(message.site,), why="its vote is malformed or not signed"),)
    now = replace(now, votes=tuple(sorted((*now.votes, message), key=lambda v: v.site)))
    if len(now.votes) < len(now.members):
        return replace(state, round=now), ()
    # from here on a complete set is out: the only way is forward, and no new attempt at this question is opened
    return replace(state, phase="answers", round=now, deadline=crypto.now() + state.plan.pace.answer), _completes(now)


def _completes(now: Round) -> tuple[Send, ...]:
    """The complete set for every participant, member or not."""
    inside = set(rules.sites_of(now.members))
    signatures = tuple(Signed(site=v.site, signature=v.signature) for v in now.votes)
    out = []
    for p in now.opening.participants:
        boxes = tuple(_from(u.core.site, u.boxes, p.site) for u in now.uploads if u.core.site in inside)
        pair_boxes = tuple(_from(v.site, v.boxes, p.site) for v in now.votes if v.boxes)
        complete = Complete(
            entry=now.entry, members=now.members, signatures=signatures, boxes=boxes, pair_boxes=pair_boxes
        )
        out.append(Send(to=p.site, message=complete))
    return tuple(out)


def _declined(state: HubState, message: Decline, crypto: HubCrypto) -> Outcome:
    now = state.round
    if (
        state.phase not in {"uploads", "voting"}
        or now is None
        or message.entry != now.entry
        or message.site in now.declined
    ):
        return state, ()
    if message.site not in {p.site for p in now.opening.participants}:
        return state, ()
    if not crypto.verify(message.site, decline_statement(message.entry, message.upload), message.signature):
        return state, (Suspected(sites=(message.site,), why="its decline is not signed"),)
    now = replace(now, declined=(*now.declined, message.site))
    state = replace(state, round=now)
    if state.phase == "voting" and message.site in rules.sites_of(now.members):
        return _shrink(state, now, {message.site}, crypto)
    return _ahead(state, crypto)


def _answered(state: HubState, message: Answer, crypto: HubCrypto) -> Outcome:
    now = state.round
    if state.phase != "answers" or now is None or message.entry != now.entry or message.members != now.members:
        return state, ()
    if any(a.site == message.site for a in now.answers) or message.site not in {
        p.site for p in now.opening.participants
    }:
        return state, ()
    if not crypto.verify(message.site, answer_statement(message), message.signature):
        return state, (Suspected(sites=(message.site,), why="its answer is not signed"),)
    suspected = _false_parts(now, message, crypto)
    now = replace(now, answers=(*now.answers, message))
    state = replace(state, round=now)
    found = _seeds(now, crypto)
    if found is None:
        return state, suspected
    self_seeds, pair_seeds = found
    masked = {u.core.site: u.core.masked for u in now.uploads}
    work = AddUp(
        entry=now.entry,
        members=now.members,
        masked=tuple(masked[member.site] for member in now.members),
        self_seeds=tuple(PairSeed(site=site, seed=seed) for site, seed in self_seeds.items()),
        pair_seeds=tuple((k, j, seed) for (k, j), seed in pair_seeds.items()),
    )
    return replace(state, phase="adding", deadline=None), (*suspected, work)


def _summed(state: HubState, event: Summed) -> Outcome:
    now = state.round
    if state.phase != "adding" or now is None or event.entry != now.entry:
        return state, ()
    salt = hashlib.sha256(
        SALT + msgspec.msgpack.encode(now.answers)
    ).digest()  # they hold secret shares, told to nobody else
    digest = sum_digest(salt, event.total)
    closed = Closed(
        run=state.run,
        step=state.step,
        entry=now.entry,
        members=now.members,
        digest=digest,
        salt=salt,
        total=event.total,
    )
    told = tuple(Send(to=p.site, message=closed) for p in now.opening.participants)
    answered = Answered(step=state.step, entry=now.entry, members=now.members, digest=digest, total=event.total)
    return replace(state, phase="idle", round=None, request=b""), (*told, answered)


# --- removing the masks
# ------------------------------------------------------------------------------------------------


def _place(now: Round) -> dict[SiteId, int]:
    return {p.site: at for at, p in enumerate(now.opening.participants)}


def _true_share(now: Round, answer: Answer, site: SiteId, share: bytes, crypto: HubCrypto) -> bool:
    """Whether it is the share that `site` committed to for this answerer."""
    core = next(u.core for u in now.uploads if u.core.site == site)
    return crypto.commit("share", now.entry, share) == _at(core.shares, _place(now)[answer.site])


def _false_parts(now: Round, answer: Answer, crypto: HubCrypto) -> tuple[Effect, ...]:
    inside = set(rules.sites_of(now.members))
    false = [
        one.site
        for one in answer.shares
        if one.site not in inside or not _true_share(now, answer, one.site, one.share, crypto)
    ]
    return tuple(Suspected(sites=(answer.site, site), why="a share is not the one committed to") for site in false)


def _seeds(now: Round, crypto: HubCrypto) -> tuple[dict[SiteId, bytes], dict[tuple[SiteId, SiteId], bytes]] | None:
    """All seeds that unmasking U takes, each checked against its commitment; None while some are missing."""
    inside = rules.sites_of(now.members)
    outside = [p.site for p in now.opening.participants if p.site not in inside]
    place, t = _place(now), now.opening.t
    cores = {u.core.site: u.core for u in now.uploads}
    self_seeds: dict[SiteId, bytes] = {}
    for j in inside:
        shares = {
            place[a.site] + 1: one.share
            for a in now.answers
            for one in a.shares
            if one.site == j and _true_share(now, a, j, one.share, crypto)
        }
        seed = _combined(shares, t, crypto, label="seed", entry=now.entry, commitment=cores[j].seed)
        if seed is None:
            return None
        self_seeds[j] = seed
    pair_seeds: dict[tuple[SiteId, SiteId], bytes] = {}
    for k, j in itertools.product(inside, outside):
        wanted = _at(cores[k].pairs, place[j])  # the masks in the sum are those that k put on
        given = [one.seed for a in now.answers for one in a.seeds if (a.site, one.site) in {(k, j), (j, k)}]
        seed = next((s for s in given if crypto.commit("pair", now.entry, s) == wanted), None)
        if seed is None:
            shares = {
                place[a.site] + 1: one.share
                for a in now.answers
                for one in a.pair_shares
                if (one.member, one.outside) == (k, j)
            }
            seed = _combined(shares, t, crypto, label="pair", entry=now.entry, commitment=wanted)
        if seed is None:
            return None
        pair_seeds[k, j] = seed
    return self_seeds, pair_seeds


def _combined(
    shares: Mapping[int, bytes], t: int, crypto: HubCrypto, *, label: str, entry: str, commitment: bytes
) -> bytes | None:
    """The seed that fits its commitment, from any t of the shares: some may be false."""
    for points in itertools.islice(itertools.combinations(sorted(shares), t), MOST_SUBSETS):
        try:
            seed = crypto.combine({x: shares[x] for x in points}, t)
        except ParomaError:
            continue
        if crypto.commit(label, entry, seed) == commitment:
            return seed
    return None


def pack(state: HubState) -> bytes:
    """The state as bytes (msgpack)."""
    return msgspec.msgpack.encode(state)


def unpack(data: bytes) -> HubState:
    """What `pack` made. Raises Refused for other bytes."""
    try:
        return msgspec.msgpack.decode(data, type=HubState)
    except msgspec.MsgspecError as problem:
        raise Refused("the stored state of a run cannot be read", do="restore it, or end the run") from problem
