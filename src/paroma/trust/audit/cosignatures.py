"""Cosignatures: who else has seen a checkpoint, and when (C2SP tlog-cosignature, `cosignature/v1`).

A log that tells two groups different things needs the signatures of a quorum in both. With more than (n + f) / 2 of n
witnesses in each, the two quorums share more than f, so one honest witness would have signed both, and it does not.
"""

from collections.abc import Mapping

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import printable
from paroma.trust.audit.notes import COSIGNATURE, KeyTextInvalid, Note, NoteKey, NoteUnsigned, Signature
from paroma.trust.keys.log_keys import LogKey

GRACE = 60.0
"""Seconds for which a cosigned checkpoint may be used."""


class QuorumMissing(Refused):
    """Too few participants have cosigned the checkpoint lately: it may be one that others were not shown."""

    def __init__(self, k: int, names: tuple[str, ...]) -> None:
        super().__init__(
            f"the checkpoint needs fresh cosignatures of {k} participants and bears {len(names)}",
            do="wait until enough participants are online and have seen the same checkpoint",
        )
        self.names = names


class Cosigner:
    """A witness's key. Signs only what `witness.grow` hands it."""

    __slots__ = ("_key", "public")

    def __init__(self, name: str, key: LogKey) -> None:
        self._key = key
        self.public = NoteKey.parse(NoteKey(name, COSIGNATURE, key.public).vkey)

    @property
    def vkey(self) -> str:
        """What others check with, as text."""
        return self.public.vkey

    def cosign(self, text: str, at: float) -> Signature:
        """A cosignature over the text of a checkpoint at `at` (seconds since 1970, cut to whole ones)."""
        time = int(at)
        made = self._key.sign(_message(text, time))
        return Signature(self.public.name, self.public.key_id, time.to_bytes(8, "big") + made)


def quorum(n: int, f: int) -> int:
    """The least k with k > (n + f) / 2: of n witnesses, f may lie. Raises BadInput where no k <= n - f has it."""
    k = (n + f) // 2 + 1
    if f < 0 or k > n - f:
        raise BadInput(
            f"of {n} witnesses {f} cannot be allowed to lie", do="have more than three times as many as may lie"
        )
    return k


def keys_of(vkeys: Mapping[str, str]) -> dict[str, NoteKey]:
    """Participants' cosignature keys from their texts. Raises KeyTextInvalid."""
    return {name: NoteKey.parse(vkey) for name, vkey in vkeys.items()}


def check_cosignature(text: str, signature: Signature, key: NoteKey) -> int:
    """The time (whole seconds since 1970) at which `key` cosigned this text of a checkpoint. Raises NoteUnsigned."""
    if key.kind != COSIGNATURE or not signature.by(key) or len(signature.body) != 72:
        raise NoteUnsigned(
            f"the line is no cosignature by `{printable(key.name)}`",
            do="ask that participant for its cosignature again",
        )
    time = int.from_bytes(signature.body[:8], "big")
    key.check(_message(text, time), signature.body[8:])
    return time


def cosigners(note: str, witnesses: Mapping[str, NoteKey]) -> dict[str, int]:
    """Which of the participants cosigned the note's text, and when last.

    witnesses: participant -> its cosignature key. Lines of others are passed over, and so are wrong ones: they prove
    nothing against the participant in whose name they stand. Raises NoteInvalid; KeyTextInvalid where two participants
    share a key.
    """
    if len({key.public for key in witnesses.values()}) < len(witnesses):
        raise KeyTextInvalid("two participants have the same key", do="have each participant make a key of its own")
    parts = Note.parse(note)
    times: dict[str, int] = {}
    for name, key in witnesses.items():
        for signature in parts.signatures:
            if not signature.by(key):
                continue
            try:
                time = check_cosignature(parts.text, signature, key)
            except NoteUnsigned:
                continue
            times[name] = max(time, times.get(name, 0))
    return times


def cosigned(
    note: str, witnesses: Mapping[str, NoteKey], k: int, *, now: float | None = None, grace: float = GRACE
) -> tuple[str, ...]:
    """The participants that cosigned the note's text, sorted; at least `k`. Raises QuorumMissing, NoteInvalid.

    With `now` (seconds since 1970) only those count whose cosignature lies within `grace` seconds of it: an older one
    says nothing of the present, one from the future is the work of a wrong clock. The log's own signature is
    `checkpoint.read`'s.
    """
    times = cosigners(note, witnesses)
    names = tuple(sorted(name for name, time in times.items() if now is None or abs(now - time) <= grace))
    if len(names) < max(k, 1):
        raise QuorumMissing(k, names)
    return names


def age(note: str, witnesses: Mapping[str, NoteKey], k: int, now: float) -> float:
    """Seconds since the `k`-th youngest cosignature: how old the quorum is. Raises QuorumMissing."""
    return age_of(cosigners(note, witnesses), k, now)


def age_of(times: Mapping[str, int], k: int, now: float) -> float:
    """`age` from what `cosigners` found. Raises QuorumMissing."""
    if len(times) < max(k, 1):
        raise QuorumMissing(k, tuple(sorted(times)))
    return now - sorted(times.values(), reverse=True)[max(k, 1) - 1]


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()
