"""A site in a run: a pure machine, `step(state, event, crypto, still_clean) -> (state, effects)`.

The program writes the new state durably, in the one transaction in which `still_clean` reads the consents, and only
then does what the effects say. Whatever was to be sent stands in the state: after a crash `Restarted` gives the same
bytes again. A message that breaks a rule changes nothing and gives a `Rejected`; nothing here raises on foreign input.

Rules kept (the letters are those of `messages`):
- one E for each (run, step, attempt); never back to an earlier attempt or step; a later attempt only at a question
  not answered;
- one upload in E, written before it is sent; a retry sends those bytes or nothing;
- a vote only for a set that holds the site with its own u, is large enough, is the first or a *proper subset of the
  last* that it signed in E, and whose shares all open; and only if no patient in the contribution has withdrawn,
  asked at that instant;
- a withdrawal found at a proposal, or before the first vote, is declined; from then on no signature and no answer
  that holds the site;
- one answer a question, over all its attempts, under the signatures of *every* member: a member's only for the last
  set that it signed, another's only for a proper subset of the last that it signed, if any; after it no signature and
  no decline;
- a state older than the program's anchor (a restored disk) neither signs nor answers in this run again.

What holds because of these rules, and against whom, is in `docs/explanation/trust.md`; the tests explore this very
code.
"""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import RunId, SiteId
from paroma.learn.runs import rules
from paroma.learn.runs.crypto import SiteCrypto
from paroma.learn.runs.messages import (
    AllCiphertexts,
    AllKeys,
    Answer,
    Box,
    Ciphertext,
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
    PairShare,
    Participant,
    Proposal,
    Ready,
    RunInvitation,
    SeedShare,
    SignedKeys,
    SitsOut,
    Stopped,
    UploadCore,
    Uploaded,
    Vote,
    answer_statement,
    beside_statement,
    ciphertext_statement,
    decline_statement,
    keys_statement,
    read_entry,
    sha256,
    statement,
    sum_digest,
    transcript,
    upload_hash,
    upload_statement,
    vote_statement,
)
from paroma.learn.secagg import masks
from paroma.learn.secagg.agreement import EphemeralKeys
from paroma.learn.secagg.shamir import SHARE_BYTES, threshold

SELF = "self"  # what a box holds: the share of a self mask's seed


# --- what is kept
# ------------------------------------------------------------------------------------------------------


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the site holds the hub to, from the permit that it verified itself.

    permit: its digest. m, c: honest owners at least, colluders tolerated. attempts: at one question. questions: in
    the run.
    participants: with owners as the permit says and keys as the federation log admits them, sorted by site.
    """

    permit: str
    m: int
    c: int
    attempts: int
    questions: int
    participants: tuple[Participant, ...]


class Pair(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secret shared with another site, for this run."""

    site: SiteId
    secret: bytes


class Secrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must not leave the site, and goes when the run ends. The program seals it at rest."""

    keys: EphemeralKeys
    root: bytes
    pairs: tuple[Pair, ...] = ()


class Attempt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the site stands in its current attempt. votes: the sets that it signed, each a proper subset of the one
    before.
    """

    entry: str
    opening: Opening
    request: bytes
    sits_out: bool = False
    upload: Uploaded | None = None
    votes: tuple[Vote, ...] = ()
    first_vote_at: float | None = None
    declined: Decline | None = None
    left_out: bool = False


class SiteState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a site remembers of a run. revision grows with every change; the program anchors it outside this disk.

    answer: to the current question, in whichever attempt. lost: an older state than the anchor was found.
    """

    run: RunId
    me: SiteId
    terms: Terms
    revision: int
    secrets: Secrets | None
    keys: SignedKeys
    everybody: AllKeys | None = None
    transcript: str = ""
    offered: Ciphertexts | None = None
    ready: Ready | None = None
    attempt: Attempt | None = None
    answer: Answer | None = None
    closed_step: int = 0
    over: bool = False
    lost: bool = False


# --- what happens, and what is to be done
# ------------------------------------------------------------------------------


class Computed(Struct, frozen=True, kw_only=True, tag="computed", forbid_unknown_fields=True):
    """The door let a contribution out for attempt `entry`. The program has written the bytes in this same transaction.

    masked: SHA-256 (hex) of them, `size` of them; inline: the bytes themselves when they are few. budget: its head
    (hex).
    """

    entry: str
    masked: str
    size: int
    inline: bytes | None
    budget: str


class CannotContribute(Struct, frozen=True, kw_only=True, tag="cannot-contribute", forbid_unknown_fields=True):
    """No contribution to attempt `entry`: below the floor, refused by policy, budget spent, bytes lost."""

    entry: str


class Withdrawn(Struct, frozen=True, kw_only=True, tag="withdrawn", forbid_unknown_fields=True):
    """A patient has withdrawn; told in the transaction that writes it, to every run that is not over."""


class Restarted(Struct, frozen=True, kw_only=True, tag="restarted", forbid_unknown_fields=True):
    """The program started again. anchored: the highest revision that is known outside the disk that holds the state."""

    anchored: int


Event = FromHub | Computed | CannotContribute | Withdrawn | Restarted


class Send(Struct, frozen=True, kw_only=True, tag="send", forbid_unknown_fields=True):
    """Send to the hub. An upload without inline bytes goes after the bytes that `core.masked` names."""

    message: FromSite


class Compute(Struct, frozen=True, kw_only=True, tag="compute", forbid_unknown_fields=True):
    """Decide, read, compute and let out a contribution, then tell `Computed` or `CannotContribute`.

    Safe to do again: it is asked for only while nothing was sent in this attempt.
    """

    entry: str
    opening: Opening
    request: bytes


class Counted(Struct, frozen=True, kw_only=True, tag="counted", forbid_unknown_fields=True):
    """Receipt: the contribution to `entry` is committed since the first vote, at `at` (unix s)."""

    entry: str
    step: int
    attempt: int
    at: float


class NotCounted(Struct, frozen=True, kw_only=True, tag="not-counted", forbid_unknown_fields=True):
    """Receipt: a complete set without this site was shown, so the contribution to `entry` is in no sum."""

    entry: str
    step: int
    attempt: int


class Learned(Struct, frozen=True, kw_only=True, tag="learned", forbid_unknown_fields=True):
    """The hub says what came out."""

    closed: Closed


class Ended(Struct, frozen=True, kw_only=True, tag="ended", forbid_unknown_fields=True):
    """The run is over; its secrets are no longer in the state."""

    finished: bool
    reason: str


class Rejected(Struct, frozen=True, kw_only=True, tag="rejected", forbid_unknown_fields=True):
    """A message broke a rule and changed nothing. why: a clause for the log."""

    why: str


Effect = Send | Compute | Counted | NotCounted | Learned | Ended | Rejected
Outcome = tuple[SiteState, tuple[Effect, ...]]


# --- the machine
# -------------------------------------------------------------------------------------------------------


def begin(me: SiteId, terms: Terms, invitation: RunInvitation, crypto: SiteCrypto) -> Outcome:
    """Accept an invitation that the program has decided on: make keys for the run and publish them.

    Raises Refused if the invitation is not what the terms say.
    """
    sites = rules.sites_of(tuple(Member(site=p.site, upload="") for p in terms.participants))
    if invitation.participants != terms.participants or me not in sites or sites != tuple(sorted(set(sites))):
        raise Refused(
            "a run's participants are not those of its permit", do="invite them as the permit and the log name them"
        )
    if not rules.fits(terms.participants, m=terms.m, c=terms.c):
        raise Refused("a run has too few owners for its permit", do="invite more sites, or apply for other numbers")
    if any(crypto.thumbprint(p.site) != p.key for p in terms.participants):
        raise Refused("a run names a key that the federation log does not admit", do="invite with the admitted keys")
    own = crypto.make_keys()
    keys = SignedKeys(run=invitation.run, site=me, x25519=own.x25519, kem=own.kem, signature=b"")
    keys = replace(keys, signature=crypto.sign(keys_statement(keys, terms.permit)))
    state = SiteState(
        run=invitation.run,
        me=me,
        terms=terms,
        revision=1,
        secrets=Secrets(keys=own, root=crypto.fresh_root()),
        keys=keys,
    )
    return state, (Send(message=keys),)


def step(state: SiteState, event: Event, crypto: SiteCrypto, still_clean: Callable[[], bool]) -> Outcome:
    """What the site remembers after `event`, and what is to be done once that is durable.

    still_clean: whether no patient in the contribution to the current attempt has withdrawn (True when there is
    none). Called at most once, at the decision, and so inside the program's transaction: hand over the question,
    never an answer from before. Effects of an unchanged state may be done at once.
    """
    after, effects = _step(state, event, crypto, still_clean)
    return (state if after is state else replace(after, revision=state.revision + 1)), effects


def _step(
    state: SiteState, event: Event, crypto: SiteCrypto, still_clean: Callable[[], bool]
) -> Outcome:  # one branch an event
    if isinstance(event, Stopped):
        return _stopped(state, event)
    if state.over:
        return _no(state, "the run is over")
    if isinstance(event, Restarted):
        return _restarted(state, event)
    if isinstance(event, Closed):
        return _closed(state, event)
    if state.lost:
        return _no(state, "the state is older than its anchor, so this site takes no further part in the run")
    match event:
        case AllKeys():
            return _all_keys(state, event, crypto)
        case AllCiphertexts():
            return _all_ciphertexts(state, event, crypto)
        case OpenAttempt():
            return _open(state, event)
        case Computed():
            return _computed(state, event, crypto, still_clean)
        case CannotContribute():
            return _cannot(state, event)
        case Proposal():
            return _proposal(state, event, crypto, still_clean)
        case Withdrawn():
            return _withdrawn(state, crypto, still_clean)
        case Complete():
            return _complete(state, event, crypto)
        case _:
            return _no(state, "a run is entered once")


def _no(state: SiteState, why: str) -> Outcome:
    return state, (Rejected(why=why),)


# --- set-up
# ------------------------------------------------------------------------------------------------------------


def _all_keys(state: SiteState, event: AllKeys, crypto: SiteCrypto) -> Outcome:
    if state.everybody is not None:
        if event == state.everybody and state.offered is not None:
            return state, (Send(message=state.offered),)
        return _no(state, "the keys of this run are fixed")
    sites = tuple(k.site for k in event.keys)
    known = {p.site for p in state.terms.participants}
    if sites != tuple(sorted(set(sites))) or not known.issuperset(sites) or state.keys not in event.keys:
        return _no(state, "the keys are not those of participants, or lack this site's own")
    present = tuple(p for p in state.terms.participants if p.site in sites)
    if not rules.fits(present, m=state.terms.m, c=state.terms.c):
        return _no(state, "too few owners have sent keys")
    for one in event.keys:
        if one.run != state.run or not crypto.verify(one.site, keys_statement(one, state.terms.permit), one.signature):
            return _no(state, f"the keys of `{one.site}` are not signed by it for this run")
    if state.secrets is None:
        return _no(state, "the secrets of this run are gone")
    bound = transcript(event.keys)
    pairs, items = [], []
    for one in event.keys:
        if one.site <= state.me:
            continue
        try:
            secret, kem, confirmation = crypto.offer(
                state.secrets.keys,
                x25519=one.x25519,
                kem=one.kem,
                context=_pair_context(state.run, bound, state.me, one.site),
            )
        except ParomaError:
            continue  # its key is malformed, though signed: it gets no ciphertext, and will say so
        item = Ciphertext(sender=state.me, receiver=one.site, kem=kem, confirmation=confirmation, signature=b"")
        items.append(replace(item, signature=crypto.sign(ciphertext_statement(state.run, bound, item))))
        pairs.append(Pair(site=one.site, secret=secret))
    offered = Ciphertexts(run=state.run, site=state.me, transcript=bound, items=tuple(items))
    secrets = replace(state.secrets, pairs=tuple(pairs))
    after = replace(state, everybody=event, transcript=bound, secrets=secrets, offered=offered)
    return after, (Send(message=offered),)


def _all_ciphertexts(state: SiteState, event: AllCiphertexts, crypto: SiteCrypto) -> Outcome:
    if state.ready is not None:
        return state, (Send(message=state.ready),)
    if state.everybody is None or state.secrets is None or event.transcript != state.transcript:
        return _no(state, "ciphertexts for other keys than this run's")
    came = {item.sender: item for item in event.items if item.receiver == state.me}
    pairs, without = list(state.secrets.pairs), []
    for one in state.everybody.keys:
        if one.site >= state.me:
            if one.site != state.me and all(pair.site != one.site for pair in pairs):
                without.append(one.site)
            continue
        item = came.get(one.site)
        try:
            if item is None or not crypto.verify(
                one.site, ciphertext_statement(state.run, state.transcript, item), item.signature
            ):
                without.append(one.site)
                continue
            context = _pair_context(state.run, state.transcript, one.site, state.me)
            secret = crypto.accept(
                state.secrets.keys,
                x25519=one.x25519,
                ciphertext=item.kem,
                confirmation=item.confirmation,
                context=context,
            )
        except ParomaError:
            without.append(one.site)
            continue
        pairs.append(Pair(site=one.site, secret=secret))
    ready = Ready(run=state.run, site=state.me, transcript=state.transcript, without=tuple(without))
    pairs.sort(key=lambda pair: pair.site)
    return replace(state, secrets=replace(state.secrets, pairs=tuple(pairs)), ready=ready), (Send(message=ready),)


def _pair_context(run: RunId, bound: str, sender: SiteId, receiver: SiteId) -> bytes:
    return statement("pair", run, bound, sender, receiver)


# --- one attempt
# -------------------------------------------------------------------------------------------------------


def _open(state: SiteState, event: OpenAttempt) -> Outcome:
    try:
        opening = read_entry(event.entry)
    except ParomaError as problem:
        return _no(state, problem.message)
    entry, now = sha256(event.entry), state.attempt
    here = (opening.step, opening.attempt)
    there = (0, 0) if now is None else (now.opening.step, now.opening.attempt)
    if now is not None and entry == now.entry:
        return state, tuple(effect for effect in _again(state) if isinstance(effect, Send))  # it computes already
    if here == there:
        return _no(state, "this attempt was opened by another entry")
    if here < there:
        return _no(state, "the site has moved on")
    if state.answer is not None and opening.step == there[0]:
        return _no(state, "who answered a question never repeats it")
    if (why := _unlike_terms(state, opening)) or (
        why := "" if sha256(event.request) == opening.request else "another request"
    ):
        return _no(state, f"the opening entry does not fit: {why}")
    attempt = Attempt(entry=entry, opening=opening, request=event.request)
    # written before anything is computed: from here on the site neither signs nor answers in an earlier attempt
    after = replace(state, attempt=attempt, answer=None)
    return after, (Compute(entry=entry, opening=opening, request=event.request),)


def _unlike_terms(state: SiteState, opening: Opening) -> str:
    terms, n = state.terms, len(opening.participants)
    sites = tuple(p.site for p in opening.participants)
    pairs = set() if state.secrets is None else {pair.site for pair in state.secrets.pairs}
    checks = (
        (opening.run == state.run and opening.permit == terms.permit, "another run or permit"),
        (
            1 <= opening.step <= terms.questions and 1 <= opening.attempt <= terms.attempts,
            "more than the permit reserves",
        ),
        (
            sites == tuple(sorted(set(sites))) and set(opening.participants) <= set(terms.participants),
            "other participants",
        ),
        (state.me in sites and pairs >= set(sites) - {state.me}, "somebody with whom this site shares no secret"),
        (state.ready is not None and opening.transcript == state.transcript, "another set-up"),
        ((opening.t, opening.m, opening.c) == (threshold(n), terms.m, terms.c), "other numbers than the permit's"),
        (opening.least == max(opening.t, opening.m + opening.c), "another least size"),
        (rules.fits(opening.participants, m=opening.m, c=opening.c), "too few owners"),
    )
    return next((why for holds, why in checks if not holds), "")


def _cannot(state: SiteState, event: CannotContribute) -> Outcome:
    now = state.attempt
    if now is None or event.entry != now.entry or now.upload is not None:
        return _no(state, "no contribution is awaited")
    if state.answer is not None:
        return _no(state, "the question is answered")
    return replace(state, attempt=replace(now, sits_out=True)), (Send(message=SitsOut(entry=now.entry, site=state.me)),)


def _computed(state: SiteState, event: Computed, crypto: SiteCrypto, still_clean: Callable[[], bool]) -> Outcome:
    now, secrets = state.attempt, state.secrets
    if now is None or secrets is None or event.entry != now.entry or now.sits_out or state.answer is not None:
        return _no(state, "no contribution is awaited")
    if now.upload is not None:
        # INVARIANT: one vector under one set of masks. What was computed again, after a crash, is thrown away.
        return state, (Send(message=now.upload),)
    if not still_clean():
        return _cannot(state, CannotContribute(entry=now.entry))  # it would only be declined
    opening, E, n = now.opening, now.entry, len(now.opening.participants)
    b = crypto.self_seed(secrets.root, E)
    shares = crypto.split(b, n=n, t=opening.t, root=secrets.root, entry=E, what=SELF)
    shared = {pair.site: pair.secret for pair in secrets.pairs}
    commitments = (
        bytes(32) if p.site == state.me else crypto.commit("pair", E, crypto.pair_seed(shared[p.site], E))
        for p in opening.participants
    )
    core = UploadCore(
        entry=E,
        site=state.me,
        masked=event.masked,
        size=event.size,
        seed=crypto.commit("seed", E, b),
        shares=b"".join(crypto.commit("share", E, share) for share in shares),
        pairs=b"".join(commitments),
    )
    upload = Uploaded(
        core=core,
        budget=event.budget,
        boxes=_boxes(state, now, SELF, dict(zip((p.site for p in opening.participants), shares, strict=True)), crypto),
        masked=event.inline,
        signature=b"",
    )
    upload = replace(upload, signature=crypto.sign(upload_statement(upload)))
    return replace(state, attempt=replace(now, upload=upload)), (Send(message=upload),)


def _boxes(
    state: SiteState, now: Attempt, what: str, contents: dict[SiteId, bytes], crypto: SiteCrypto
) -> tuple[Box, ...]:
    return tuple(
        Box(
            site=site,
            sealed=crypto.seal(
                _secret_with(state, site), data, entry=now.entry, sender=state.me, receiver=site, what=what
            ),
        )
        for site, data in contents.items()
    )


def _secret_with(state: SiteState, site: SiteId) -> bytes:
    """What boxes between the site and another one are sealed under; its root for those to itself."""
    secrets = state.secrets
    if secrets is None:
        raise Refused("the secrets of this run are gone", do="start another run")
    return secrets.root if site == state.me else next(pair.secret for pair in secrets.pairs if pair.site == site)


def _opened(
    state: SiteState, boxes: tuple[Box, ...], *, now: Attempt, what: str, size: int, crypto: SiteCrypto
) -> dict[SiteId, bytes]:
    """The contents, of exactly `size` bytes, of those boxes for this site that open, by sender."""
    out: dict[SiteId, bytes] = {}
    known = {p.site for p in now.opening.participants}
    for box in boxes:
        if box.site not in known:
            continue
        try:
            content = crypto.open_box(
                _secret_with(state, box.site),
                box.sealed,
                entry=now.entry,
                sender=box.site,
                receiver=state.me,
                what=what,
            )
        except ParomaError:
            continue
        if len(content) == size:
            out[box.site] = content
    return out


def _proposal(state: SiteState, event: Proposal, crypto: SiteCrypto, still_clean: Callable[[], bool]) -> Outcome:
    now = state.attempt
    if now is None or event.entry != now.entry:
        return _no(state, "a proposal for an attempt that the site is not in")
    if state.answer is not None:
        return _no(state, "who answered signs nothing more")
    if now.declined is not None:
        return state, (Send(message=now.declined),)
    upload, U = now.upload, event.members
    if (
        upload is None
        or Member(site=state.me, upload=upload_hash(upload.core)) not in U
        or not rules.well_formed(now.opening, U)
    ):
        return _no(state, "a proposal without this site's own upload, or too small")
    last = now.votes[-1] if now.votes else None
    if last is not None and last.members == U:
        return state, (Send(message=last),)
    if last is not None and not rules.proper_subset(U, last.members):
        return _no(state, "a proposal that is no smaller set than the last one signed")
    opened = _opened(state, event.boxes, now=now, what=SELF, size=SHARE_BYTES, crypto=crypto)
    if unopened := [member.site for member in U if member.site not in opened]:
        return _no(state, f"the share of `{unopened[0]}` does not open")
    if not still_clean():  # in the program's transaction, in one order with withdrawals: the point of no return is here
        return _decline(state, now, upload, crypto)
    vote = _vote(state, now, upload, event, crypto)
    at = crypto.now() if now.first_vote_at is None else now.first_vote_at
    counted = (
        ()
        if last is not None
        else (Counted(entry=now.entry, step=now.opening.step, attempt=now.opening.attempt, at=at),)
    )
    return replace(state, attempt=replace(now, votes=(*now.votes, vote), first_vote_at=at)), (
        *counted,
        Send(message=vote),
    )


def _vote(state: SiteState, now: Attempt, upload: Uploaded, event: Proposal, crypto: SiteCrypto) -> Vote:
    opening, E, U = now.opening, now.entry, event.members
    signature = crypto.sign(vote_statement(E, U))
    contents = {p.site: b"" for p in opening.participants}
    for d in _outside(opening, U):
        s = crypto.pair_seed(_secret_with(state, d), E)
        shares = crypto.split(
            s, n=len(opening.participants), t=opening.t, root=_secret_with(state, state.me), entry=E, what=f"pair {d}"
        )
        for p, share in zip(opening.participants, shares, strict=True):
            contents[p.site] += share
    boxes = _boxes(state, now, _pairs(E, U), contents, crypto) if _outside(opening, U) else ()
    vote = Vote(
        entry=E,
        site=state.me,
        members=U,
        signature=signature,
        checkpoint=event.checkpoint,
        budget=upload.budget,
        boxes=boxes,
        beside=b"",
    )
    return replace(vote, beside=crypto.sign(beside_statement(vote)))


def _pairs(E: str, U: tuple[Member, ...]) -> str:
    """What a vote's boxes hold, bound to the set: shares of the pair seeds with those outside it."""
    return "pairs " + sha256(vote_statement(E, U))


def _outside(opening: Opening, U: tuple[Member, ...]) -> tuple[SiteId, ...]:
    inside = set(rules.sites_of(U))
    return tuple(p.site for p in opening.participants if p.site not in inside)


def _decline(state: SiteState, now: Attempt, upload: Uploaded, crypto: SiteCrypto) -> Outcome:
    u = upload_hash(upload.core)
    declined = Decline(entry=now.entry, site=state.me, upload=u, signature=crypto.sign(decline_statement(now.entry, u)))
    return replace(state, attempt=replace(now, declined=declined)), (Send(message=declined),)


def _withdrawn(state: SiteState, crypto: SiteCrypto, still_clean: Callable[[], bool]) -> Outcome:
    """Say so at once where the hub can still propose a set without this site at no cost.

    After the first vote it changes nothing: that vote was the disclosure, and the site answers, unless a later
    proposal finds it.
    """
    now = state.attempt
    if (
        now is None
        or now.upload is None
        or now.votes
        or now.declined is not None
        or state.answer is not None
        or still_clean()
    ):
        return state, ()
    return _decline(state, now, now.upload, crypto)


def _complete(state: SiteState, event: Complete, crypto: SiteCrypto) -> Outcome:
    now, U = state.attempt, event.members
    if now is None or event.entry != now.entry:
        return _no(state, "a complete set of an attempt that the site is not in")
    if state.answer is not None and state.answer.members == U:
        return state, (Send(message=state.answer),)
    if not rules.well_formed(now.opening, U):
        return _no(state, "a set that is too small or malformed")
    signatures = {one.site: one.signature for one in event.signatures}
    core = vote_statement(now.entry, U)
    for member in U:  # t of them are not enough: every member has committed, or this is no complete set
        if not crypto.verify(member.site, core, signatures.get(member.site, b"")):
            return _no(state, f"`{member.site}` has not signed this set")
    inside = state.me in rules.sites_of(U)
    effects: tuple[Effect, ...] = ()
    if not inside and now.votes and not now.left_out:
        # only this proves it: neither a later decline nor moving on recalls a signature
        now = replace(now, left_out=True)
        state = replace(state, attempt=now)
        effects = (NotCounted(entry=now.entry, step=now.opening.step, attempt=now.opening.attempt),)
    last = now.votes[-1].members if now.votes else None
    if state.answer is not None:
        why = "who answered answers nothing else"
    elif inside and (last != U or now.declined is not None):
        why = "not the last set that this site signed, or it has declined"
    elif not inside and last is not None and not rules.proper_subset(U, last):
        why = "no smaller set than the last one signed"
    else:
        why = ""
    if why:
        return state, (*effects, Rejected(why=why))
    shares = _opened(state, event.boxes, now=now, what=SELF, size=SHARE_BYTES, crypto=crypto)
    if inside and any(site not in shares for site in rules.sites_of(U)):
        return state, (*effects, Rejected(why="a share that opened at the vote does not open now"))
    answer = _answer(state, now, event, shares, crypto)
    return replace(state, answer=answer), (*effects, Send(message=answer))


def _answer(state: SiteState, now: Attempt, event: Complete, shares: dict[SiteId, bytes], crypto: SiteCrypto) -> Answer:
    """INVARIANT: for a site in U its share of b and no seed with another site in U; for one outside seeds and no
    share of b.
    """
    opening, E, U = now.opening, now.entry, event.members
    inside, outside = rules.sites_of(U), _outside(opening, U)
    partners = outside if state.me in inside else inside
    dealt = (
        _opened(state, event.pair_boxes, now=now, what=_pairs(E, U), size=SHARE_BYTES * len(outside), crypto=crypto)
        if outside
        else {}
    )
    answer = Answer(
        entry=E,
        site=state.me,
        members=U,
        shares=tuple(SeedShare(site=j, share=shares[j]) for j in inside if j in shares),
        seeds=tuple(PairSeed(site=j, seed=crypto.pair_seed(_secret_with(state, j), E)) for j in partners),
        pair_shares=tuple(
            PairShare(member=k, outside=d, share=dealt[k][at * SHARE_BYTES : (at + 1) * SHARE_BYTES])
            for k in inside
            if k in dealt
            for at, d in enumerate(outside)
        ),
        signature=b"",
    )
    return replace(answer, signature=crypto.sign(answer_statement(answer)))


# --- afterwards
# --------------------------------------------------------------------------------------------------------


def _closed(state: SiteState, event: Closed) -> Outcome:
    if event.run != state.run or event.digest != sum_digest(event.salt, event.total):
        return _no(state, "a result of another run, or one that was changed")
    if event.step <= state.closed_step:
        return state, ()
    return replace(state, closed_step=event.step), (Learned(closed=event),)


def _stopped(state: SiteState, event: Stopped) -> Outcome:
    if event.run != state.run or state.over:
        return state, ()
    return replace(state, over=True, secrets=None), (Ended(finished=event.finished, reason=event.reason),)


def _restarted(state: SiteState, event: Restarted) -> Outcome:
    if state.lost:
        return state, ()
    if state.revision < event.anchored:
        # an older disk: what was signed or answered since is not known here, so nothing may be signed or answered again
        after = replace(state, lost=True, secrets=None, revision=event.anchored)
        return after, (Rejected(why="the state is older than its anchor"),)
    return state, _again(state)


def _again(state: SiteState) -> tuple[Effect, ...]:
    """What the current state has to say, byte for byte as it was written."""
    now = state.attempt
    if now is None:
        latest = state.ready or state.offered or state.keys
        return (Send(message=latest),)
    out: list[Effect] = []
    if now.sits_out:
        out.append(Send(message=SitsOut(entry=now.entry, site=state.me)))
    elif now.upload is not None:
        out.append(Send(message=now.upload))
    elif state.answer is None:
        out.append(Compute(entry=now.entry, opening=now.opening, request=now.request))
    if now.votes:
        out.append(Send(message=now.votes[-1]))
    if now.declined is not None:
        out.append(Send(message=now.declined))
    if state.answer is not None:
        out.append(Send(message=state.answer))
    return tuple(out)


def masks_of(state: SiteState, crypto: SiteCrypto) -> list[masks.Mask]:
    """The masks of the current attempt, for the door (`secagg.masks.masker`). Raises Refused outside an attempt."""
    now, secrets = state.attempt, state.secrets
    if now is None or secrets is None:
        raise Refused("the site is in no attempt", do="wait for one to be opened")
    others = {p.site for p in now.opening.participants} - {state.me}
    seeds = {pair.site: crypto.pair_seed(pair.secret, now.entry) for pair in secrets.pairs if pair.site in others}
    return masks.masks_of(state.me, crypto.self_seed(secrets.root, now.entry), seeds)


def pack(state: SiteState) -> bytes:
    """The state as bytes (msgpack). They hold the run's secrets: seal them at rest."""
    return msgspec.msgpack.encode(state)


def unpack(data: bytes) -> SiteState:
    """What `pack` made. Raises Refused for other bytes."""
    try:
        return msgspec.msgpack.decode(data, type=SiteState)
    except msgspec.MsgspecError as problem:
        raise Refused("the stored state of a run cannot be read", do="restore it, or leave the run") from problem
