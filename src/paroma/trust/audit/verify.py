"""A whole log, checked from its first byte to its signed head, and what that proves.

Needs nothing from whoever keeps the log but its files: keys come from elsewhere (a key that is taken from the log
proves nothing).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paroma.trust.audit import checkpoint as checkpoints
from paroma.trust.audit.checkpoint import Checkpoint, LogInconsistent
from paroma.trust.audit.cosignatures import cosigned
from paroma.trust.audit.entries import Entry, open_entry
from paroma.trust.audit.follow import ProvedTree, follow
from paroma.trust.audit.notes import NoteKey
from paroma.trust.audit.proofs import ProofInvalid, prove_consistency, verify_consistency
from paroma.trust.audit.tiles import CHECKPOINT, TileMissing, TileReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str  # its name
    holds: bool
    sentence: str  # what holds, or what does not and where


Check = Callable[[Iterator[Entry]], Finding]
"""Reads a log's entries in order, once, and says what it found. Keeps to what an entry says; asks nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What is known about a log from elsewhere."""

    checks: Sequence[Check] = ()
    remembered: Sequence[Checkpoint] = ()  # earlier checkpoints that this one must continue
    now: float | None = None  # seconds since 1970; then the cosignatures must be fresh
    opens: bool = True  # whether each entry must be one of ours (`entries.seal`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome for a log whose bytes are sound."""

    origin: str
    size: int  # entries
    root: bytes
    cosigned_by: tuple[str, ...]
    findings: tuple[Finding, ...]
    proved: tuple[str, ...]  # sentences
    not_proved: tuple[str, ...]  # sentences

    @property
    def holds(self) -> bool:
        """Whether every check found what it should."""
        return all(finding.holds for finding in self.findings)

    @property
    def sentence(self) -> str:
        """All of it for a reader."""
        said = " ".join(self.proved)
        against = " ".join(f"Not so: {finding.sentence}." for finding in self.findings if not finding.holds)
        return f"{said} {against} It does not prove {'; nor '.join(self.not_proved)}.".replace("  ", " ")


def verify(
    read: TileReader,
    origin: str,
    vkey: str,
    witnesses: Mapping[str, NoteKey],
    k: int,
    *,
    expectations: Expectations = Expectations(),
) -> Report:
    """Check the log behind `read`: signature, `k` cosignatures (0: none asked), every tile and entry, and the checks.

    Raises LogInconsistent for a change of the log, NoteUnsigned or QuorumMissing for its head, BadInput for what cannot
    be read.
    """
    key = NoteKey.parse(vkey)
    if key.name != origin:
        raise LogInconsistent(origin, f"the key given is that of `{key.name}`")
    head = checkpoints.read(_text(read(CHECKPOINT)), key)
    names = cosigned(head.note, witnesses, k, now=expectations.now) if k else ()
    _continues(read, head, expectations.remembered)
    for number, sealed in follow(read, head).entries:
        if expectations.opens:
            open_entry(sealed, number)
    findings = tuple(check(_opened(read, head)) for check in expectations.checks)
    proved = [
        f"All {head.size} entries of `{origin}` are those under the head that its key signed; not a byte differs."
    ]
    if names:
        proved.append(
            f"The same head was cosigned by {_listed(names)}, so each of them was shown this log and no other."
        )
    if expectations.remembered:
        proved.append(
            f"It continues the {len(expectations.remembered)} checkpoint(s) that were remembered from before."
        )
    proved += [f"{finding.sentence[:1].upper()}{finding.sentence[1:]}." for finding in findings if finding.holds]
    not_proved = ["that a program wrote down everything it did", "that what an entry says is true of the world"]
    if not names:
        not_proved.insert(0, "that others were shown the same log, for nobody's cosignature was asked")
    elif expectations.now is None:
        not_proved.append("that this is the log's present head, for the age of the cosignatures was not looked at")
    return Report(
        origin=origin,
        size=head.size,
        root=head.root,
        cosigned_by=names,
        findings=findings,
        proved=tuple(proved),
        not_proved=tuple(not_proved),
    )


def verify_folder(
    folder: Path,
    origin: str,
    vkey: str,
    witnesses: Mapping[str, NoteKey],
    k: int,
    *,
    expectations: Expectations = Expectations(),
) -> Report:
    """`verify` for a log that lies in a folder as C2SP tlog-tiles lays it out."""
    return verify(folder_reader(folder), origin, vkey, witnesses, k, expectations=expectations)


def folder_reader(folder: Path) -> TileReader:
    """Reads tiles from a folder; only paths that `tiles.Where` writes ever reach it."""

    def read(path: str) -> bytes:
        try:
            return (folder / path).read_bytes()
        except OSError:
            raise TileMissing(
                f"there is no `{path}` in `{folder}`", do="copy the whole log, partial tiles included"
            ) from None

    return read


def needs(kind: str, before: str, *, link: str) -> Check:
    """A check that each entry of `kind` follows one of kind `before` with the same value of the fact `link`.

    Such as `needs("vote", "attempt-opened", link="attempt")`.
    """

    def check(entries: Iterator[Entry]) -> Finding:
        opened: set[object] = set()
        count = 0
        for entry in entries:
            value = entry.facts.get(link)
            if entry.kind == before:
                opened.add(_hashable(value))
            elif entry.kind == kind:
                count += 1
                if value is None or _hashable(value) not in opened:
                    return Finding(
                        check=f"{kind} needs {before}",
                        holds=False,
                        sentence=f"entry {entry.number} is a `{kind}` without an earlier `{before}` of the same {link}",
                    )
        return Finding(
            check=f"{kind} needs {before}",
            holds=True,
            sentence=f"each of {count} `{kind}` entries follows its `{before}`",
        )

    return check


def adds_up(kind: str, amount: str, *, per: str, limit: str, limit_kind: str) -> Check:
    """A check that the fact `amount` of all entries of `kind`, added up for each value of `per`, stays within a limit.

    The limit is the fact `limit` of the first entry of kind `limit_kind` with that value of `per`.

    Such as `adds_up("debit", "epsilon", per="permit", limit="epsilon", limit_kind="permit")`. A billionth is left for
    rounding.
    """
    name = f"{amount} within {limit}"

    def check(entries: Iterator[Entry]) -> Finding:
        spent: dict[object, float] = {}
        limits: dict[object, float] = {}
        for entry in entries:
            group = _hashable(entry.facts.get(per))
            if entry.kind == limit_kind:
                limits.setdefault(group, _number(entry.facts.get(limit), -1.0))
            if entry.kind == kind:
                value = _number(entry.facts.get(amount), float("nan"))
                spent[group] = spent.get(group, 0.0) + value
                # written so that a value that is no number fails too
                if not (value >= 0 and group in limits and spent[group] <= limits[group] * (1 + 1e-9)):
                    return Finding(
                        check=name,
                        holds=False,
                        sentence=f"entry {entry.number} takes {amount} beyond what `{limit_kind}` allows to its {per}",
                    )
        return Finding(
            check=name, holds=True, sentence=f"the {amount} spent adds up to no more than allowed, for each {per}"
        )

    return check


def _opened(read: TileReader, head: Checkpoint) -> Iterator[Entry]:
    # each check walks the log by itself, and each walk is proved anew: memory stays at one tile, however long the log
    for number, sealed in ProvedTree(read, head).entries():
        yield open_entry(sealed, number)


def _continues(read: TileReader, head: Checkpoint, remembered: Sequence[Checkpoint]) -> None:
    tree = ProvedTree(read, head) if remembered else None
    for old in remembered:
        if tree is None or old.origin != head.origin or old.size > head.size:
            raise LogInconsistent(
                head.origin, f"it has {head.size} entries, {old.size} of `{old.origin}` were seen before"
            )
        if old.size == 0:
            continue
        proof = prove_consistency(old.size, head.size, tree.nodes())
        try:
            verify_consistency(old.size, head.size, proof.hashes, old.root, head.root)
        except ProofInvalid:
            raise LogInconsistent(
                head.origin, f"its first {old.size} entries are not those that were seen before"
            ) from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise checkpoints.CheckpointInvalid("the checkpoint is not text", do="fetch it again") from None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _hashable(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
