"""Every wire type of a run, in the order in which it travels, and the exact bytes that are signed.

Hub to site: RunInvitation, AllKeys, AllCiphertexts, OpenAttempt, Proposal, Complete, Closed, Stopped.
Site to hub: SignedKeys or StaysOut, Ciphertexts, Ready, Uploaded or SitsOut, Vote or Decline, Answer.

The letters are those of the protocol: E is the hash of an attempt's opening entry (hex), U a set of members with the
hashes u of their uploads, t the threshold of shares, m the least number of honest owners in a sum, c the colluders
tolerated. What is signed is a fixed byte string, `statement(...)`: a domain, then each part behind its length.
Nothing else is.
"""

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import RunId, SiteId


class Participant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site in a run: who owns it, and the thumbprint (RFC 7638) of the key that it signs with."""

    site: SiteId
    owner: str
    key: str


class Member(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site in a survivor set, with the hash `u` (hex) of what it uploaded."""

    site: SiteId
    upload: str


class Box(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something sealed between two sites. `site` is the other end: the receiver on the way to the hub, the sender
    from it.
    """

    site: SiteId
    sealed: bytes


class Signed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site's signature (ES256, 64 bytes)."""

    site: SiteId
    signature: bytes


# --- setting up a run: two trips
# ---------------------------------------------------------------------------------------


class RunInvitation(Struct, frozen=True, kw_only=True, tag="run-invitation", forbid_unknown_fields=True):
    """Hub: take part in this run? `permit` is the signed permit, `query` what the algorithm is asked; both opaque
    here.
    """

    run: RunId
    permit: bytes
    query: bytes
    participants: tuple[Participant, ...]


class SignedKeys(Struct, frozen=True, kw_only=True, tag="signed-keys", forbid_unknown_fields=True):
    """Site, first trip: its ephemeral public keys for this run (X25519, 32 bytes; ML-KEM-768, 1,184 bytes), signed."""

    run: RunId
    site: SiteId
    x25519: bytes
    kem: bytes
    signature: bytes


class StaysOut(Struct, frozen=True, kw_only=True, tag="stays-out", forbid_unknown_fields=True):
    """Site, in place of its keys: it takes no part in this run. The reason stands in its own log; none travels."""

    run: RunId
    site: SiteId


class AllKeys(Struct, frozen=True, kw_only=True, tag="all-keys", forbid_unknown_fields=True):
    """Hub: the keys of all who came, sorted by site. Their hash is the `transcript`; every pair secret binds it."""

    run: RunId
    keys: tuple[SignedKeys, ...]


class Ciphertext(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pair's KEM ciphertext with its key confirmation, signed by `sender`, the smaller of the two names."""

    sender: SiteId
    receiver: SiteId
    kem: bytes
    confirmation: bytes
    signature: bytes


class Ciphertexts(Struct, frozen=True, kw_only=True, tag="ciphertexts", forbid_unknown_fields=True):
    """Site, second trip: one ciphertext for every participant with a greater name (none, for the last)."""

    run: RunId
    site: SiteId
    transcript: str
    items: tuple[Ciphertext, ...]


class AllCiphertexts(Struct, frozen=True, kw_only=True, tag="all-ciphertexts", forbid_unknown_fields=True):
    """Hub: the ciphertexts for the receiver, one from every participant with a smaller name."""

    run: RunId
    transcript: str
    items: tuple[Ciphertext, ...]


class Ready(Struct, frozen=True, kw_only=True, tag="ready", forbid_unknown_fields=True):
    """Site: it shares a confirmed secret with everybody but `without` (their ciphertexts were missing or false)."""

    run: RunId
    site: SiteId
    transcript: str
    without: tuple[SiteId, ...] = ()


# --- one attempt at one question
# ---------------------------------------------------------------------------------------


class Opening(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the opening entry of an attempt in the federation log says. A question is (run, step); an attempt one try
    at it.

    permit, request: digests (hex); request is of the model or query that is sent. transcript: of the run's set-up.
    participants: sorted by site. least = max(t, m + c).
    """

    run: RunId
    step: int
    attempt: int
    permit: str
    request: str
    transcript: str
    participants: tuple[Participant, ...]
    t: int
    m: int
    c: int
    least: int
    at: float


class OpenAttempt(Struct, frozen=True, kw_only=True, tag="open-attempt", forbid_unknown_fields=True):
    """Hub: an attempt is open. `entry` is its entry in the federation log, byte for byte; `request` the algorithm's
    bytes.
    """

    entry: bytes
    request: bytes
    checkpoint: str


class UploadCore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an upload binds; its hash is u. Commitments are SHA-256, hex-free, 32 bytes each, in the order of
    participants.

    masked: SHA-256 (hex) of the masked bytes, `size` of them. seed: of the self mask's seed b. shares: of the shares
    of b, one after the other. pairs: of the pair seeds, with zeros in the own place. They name who lies; they open
    nothing.
    """

    entry: str
    site: SiteId
    masked: str
    size: int
    seed: bytes
    shares: bytes
    pairs: bytes


class Uploaded(Struct, frozen=True, kw_only=True, tag="uploaded", forbid_unknown_fields=True):
    """Site: its contribution. `masked` is None when the bytes travel as an upload of their own, named by core.masked.

    budget: head of its privacy budget (hex). boxes: shares of b, sealed for every participant, itself included.
    """

    core: UploadCore
    budget: str
    boxes: tuple[Box, ...]
    masked: bytes | None
    signature: bytes


class SitsOut(Struct, frozen=True, kw_only=True, tag="sits-out", forbid_unknown_fields=True):
    """Site: no contribution to this attempt. No reason travels: it could tell about patients."""

    entry: str
    site: SiteId


class Proposal(Struct, frozen=True, kw_only=True, tag="proposal", forbid_unknown_fields=True):
    """Hub: shall U = `members` (sorted by site) be the survivors? boxes: the shares of b_j, j in U, for the receiver.

    checkpoint: of the federation log, cosigned by a quorum of the participants; opaque to the machines.
    """

    entry: str
    members: tuple[Member, ...]
    boxes: tuple[Box, ...]
    checkpoint: str


class Vote(Struct, frozen=True, kw_only=True, tag="vote", forbid_unknown_fields=True):
    """Site: it commits to U. `signature` is over ("vote", E, U) alone: the core, on which everybody must agree.

    Beside it, under `beside`: checkpoint, head of the budget, and boxes with its shares of the pair seeds s_id, one
    for each d outside U, sealed for every participant, itself included (no boxes if nobody is outside).
    """

    entry: str
    site: SiteId
    members: tuple[Member, ...]
    signature: bytes
    checkpoint: str
    budget: str
    boxes: tuple[Box, ...]
    beside: bytes


class Decline(Struct, frozen=True, kw_only=True, tag="decline", forbid_unknown_fields=True):
    """Site: it signs no further set that holds itself. Names no set, gives no reason, certifies nothing."""

    entry: str
    site: SiteId
    upload: str
    signature: bytes


class Complete(Struct, frozen=True, kw_only=True, tag="complete", forbid_unknown_fields=True):
    """Hub: every member of U has signed it. For the receiver: its shares of b_j (j in U) and of the pair seeds (k in
    U).
    """

    entry: str
    members: tuple[Member, ...]
    signatures: tuple[Signed, ...]
    boxes: tuple[Box, ...]
    pair_boxes: tuple[Box, ...]


class SeedShare(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answerer's share of the self mask's seed of `site`."""

    site: SiteId
    share: bytes


class PairSeed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pair seed between the answerer and `site`."""

    site: SiteId
    seed: bytes


class PairShare(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answerer's share of the pair seed between `member`, in U, who dealt it, and `outside`."""

    member: SiteId
    outside: SiteId
    share: bytes


class Answer(Struct, frozen=True, kw_only=True, tag="answer", forbid_unknown_fields=True):
    """Site, once per question over all its attempts: what removes the masks of U. Never both for one site."""

    entry: str
    site: SiteId
    members: tuple[Member, ...]
    shares: tuple[SeedShare, ...]
    seeds: tuple[PairSeed, ...]
    pair_shares: tuple[PairShare, ...]
    signature: bytes


class Closed(Struct, frozen=True, kw_only=True, tag="closed", forbid_unknown_fields=True):
    """Hub: the question is answered. total: the sum in wire bytes, from which a site recomputes the next model.

    digest, salt: of `sum_digest`; the log holds the digest alone.
    """

    run: RunId
    step: int
    entry: str
    members: tuple[Member, ...]
    digest: str
    salt: bytes
    total: bytes


class Stopped(Struct, frozen=True, kw_only=True, tag="stopped", forbid_unknown_fields=True):
    """Hub: the run is over. `finished` if all its questions were answered; `reason` is a sentence."""

    run: RunId
    finished: bool
    reason: str


FromHub = RunInvitation | AllKeys | AllCiphertexts | OpenAttempt | Proposal | Complete | Closed | Stopped
FromSite = SignedKeys | StaysOut | Ciphertexts | Ready | Uploaded | SitsOut | Vote | Decline | Answer


# --- what is hashed and signed
# -----------------------------------------------------------------------------------------


def statement(domain: str, *parts: bytes | str | int) -> bytes:
    """`paroma/<domain>/v1`, then each part behind its length in eight bytes: no two lists of parts give the same
    bytes.
    """
    out = [b"paroma/" + domain.encode() + b"/v1\n"]
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        out.append(len(data).to_bytes(8, "big"))
        out.append(data)
    return b"".join(out)


def sha256(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def sum_digest(salt: bytes, total: bytes) -> str:
    """What binds a sum (wire bytes) in the log, hex. salt: 32 bytes that only the hub and the participants know.

    A bare hash would tell everybody who reads the log whether a guess is right, and the small counts in a sum, which no
    answer shows, are few to guess.
    """
    return sha256(b"paroma/sum/v1\n" + salt + total)


def entry_bytes(opening: Opening) -> bytes:
    """The opening entry, ready for the federation log: canonical JSON with `kind` and `at`."""
    facts = {name: getattr(opening, name) for name in opening.__struct_fields__ if name != "participants"}
    people = [{"key": p.key, "owner": p.owner, "site": p.site} for p in opening.participants]
    return canonical.encode({"kind": "attempt-opened", **facts, "participants": people})


def read_entry(entry: bytes) -> Opening:
    """The opening that these entry bytes say. Raises BadInput unless they are exactly what `entry_bytes` makes."""
    facts = canonical.decode(entry)
    if not isinstance(facts, dict) or facts.pop("kind", None) != "attempt-opened":
        raise BadInput("a log entry opens no attempt", do="send an entry of kind `attempt-opened`")
    try:
        opening = msgspec.convert(facts, Opening, strict=False)
    except msgspec.ValidationError as problem:
        raise BadInput(
            f"an opening entry cannot be read: {problem}", do="send an entry of kind `attempt-opened`"
        ) from problem
    if entry_bytes(opening) != entry:
        raise BadInput("an opening entry is not in canonical form", do="send the entry as the log holds it")
    return opening


def _members(members: Iterable[Member]) -> bytes:
    return b"".join(statement("member", one.site, one.upload) for one in members)


def _boxes(boxes: Iterable[Box]) -> bytes:
    return hashlib.sha256(b"".join(statement("box", one.site, one.sealed) for one in boxes)).digest()


def keys_statement(keys: SignedKeys, permit: str) -> bytes:
    """What a site signs over its ephemeral keys. permit: its digest (hex)."""
    return statement("keys", keys.run, permit, keys.site, keys.x25519, keys.kem)


def transcript(keys: Iterable[SignedKeys]) -> str:
    """Hash (hex) of all keys of a run."""
    return sha256(b"".join(statement("key", k.run, k.site, k.x25519, k.kem, k.signature) for k in keys))


def ciphertext_statement(run: RunId, transcript: str, item: Ciphertext) -> bytes:
    """What a site signs over one ciphertext."""
    return statement("ciphertext", run, transcript, item.sender, item.receiver, item.kem, item.confirmation)


def upload_hash(core: UploadCore) -> str:
    """u: the hash (hex) of what an upload binds."""
    return sha256(
        statement("upload", core.entry, core.site, core.masked, core.size, core.seed, core.shares, core.pairs)
    )


def upload_statement(uploaded: Uploaded) -> bytes:
    """What a site signs over its upload."""
    return statement(
        "uploaded", uploaded.core.entry, upload_hash(uploaded.core), uploaded.budget, _boxes(uploaded.boxes)
    )


def vote_statement(entry: str, members: tuple[Member, ...]) -> bytes:
    """The core of a vote: ("vote", E, U)."""
    return statement("vote", entry, _members(members))


def beside_statement(vote: Vote) -> bytes:
    """What is signed beside the core of a vote."""
    return statement(
        "beside", vote_statement(vote.entry, vote.members), vote.checkpoint, vote.budget, _boxes(vote.boxes)
    )


def decline_statement(entry: str, upload: str) -> bytes:
    """What a decline signs: (E, u). No set, and no reason."""
    return statement("decline", entry, upload)


def answer_statement(answer: Answer) -> bytes:
    """What is signed over an answer."""
    return statement(
        "answer",
        vote_statement(answer.entry, answer.members),
        *(part for one in answer.shares for part in (b"share", one.site, one.share)),
        *(part for one in answer.seeds for part in (b"seed", one.site, one.seed)),
        *(part for one in answer.pair_shares for part in (b"pair", one.member, one.outside, one.share)),
    )
