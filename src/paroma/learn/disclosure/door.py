"""The door through which numbers leave a site.

An update comes in, a masked one goes out. Only `let_out` makes a `Masked`, and the upload carries nothing else. Rules
kept, in this order: the floor of patients; each field within its bound; the budget is debited, durably, before noise
exists; noise; ring; masks. A refused update leaves nothing behind but, perhaps, a spent budget. Knows no network, no
file, no Flower.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from paroma.kernel import canonical
from paroma.kernel.errors import ParomaError, Refused
from paroma.kernel.ids import PatientId
from paroma.learn.disclosure.ledger import Charge, Receipt, charge
from paroma.learn.dp import accountants, bound as grid
from paroma.learn.dp.bound import Bound
from paroma.learn.dp.mechanisms import Noise
from paroma.learn.secagg.layout import Layout
from paroma.trust.permit.permit import Permit, Privacy

I64 = NDArray[np.int64]
Masks = Callable[[bytes], bytes]  # adds this attempt's masks to the encoded fields; as many bytes come back
PUBLIC: Final = "patients"  # the one field that carries no noise: row counts are public, and said beside each epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a worker computed. It stays at the site.

    attempt: hash of the attempt's opening entry, hex. question: digest of query and model, hex. totals: all fields
    one after the other, in steps of each field's 2^-scale_bits. rows: how many patients stand behind the totals.
    patients: everyone who was read. bound: how the platform's worker cut each patient's row, None when it did not.
    selected: those of them whom the query is about (what `memory.admit` compares); None for all.
    """

    attempt: str
    question: str
    layout: Layout
    totals: I64
    rows: int
    patients: tuple[PatientId, ...]
    bound: Bound | None
    selected: tuple[PatientId, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """What may leave: made by `let_out` and nobody else.

    attempt: hex. upload: the masked fields, little-endian, as the layout orders them. layout: its digest, hex.
    receipt: the debit behind it.
    """

    attempt: str
    upload: bytes
    layout: str
    receipt: Receipt


class CohortTooSmall(Refused):
    """Fewer patients than the permit's floor. The same for every cohort below it: the count would disclose."""

    def __init__(self) -> None:
        super().__init__(
            "the cohort is smaller than the permit's floor of patients",
            do="widen the cohort, or apply for a permit with a lower floor",
        )


class UpdateOutOfBounds(ParomaError):
    """A total that its patients cannot have made: the worker or the layout is wrong. Refused, never wrapped."""


class UpdateUnbounded(Refused):
    """The permit asks for differential privacy, and the rows were not cut as it says."""


class AlreadyLetOut(Refused):
    """This attempt was let out before. A second noise on the same totals would disclose more than was debited."""

    def __init__(self) -> None:
        super().__init__(
            "this attempt was let out before", do="send the stored bytes again, or sit out until the next attempt"
        )


class MasksBroken(ParomaError):
    """The masks changed the size of what they were to hide."""


class Budget(Protocol):
    """Where the budget is kept. `disclosure.ledger.Kept` is the real one."""

    def reserve(self, wish: Charge, /) -> Receipt:
        """Debit, durably: what this returns has survived a power cut. Raises the ledger's errors and whatever the
        disk raises.
        """


def let_out(update: Update, *, permit: Permit, ledger: Budget, noise: Noise, masks: Masks) -> Masked:
    """Let one contribution out of the site. Blocks on the disk: run it in a thread.

    noise: drawn only where the permit asks for privacy. masks: of the attempt's secure sum.
    Raises CohortTooSmall, UpdateOutOfBounds, UpdateUnbounded, AlreadyLetOut, MasksBroken, NoiseTooCoarse, and the
    ledger's BudgetSpent, QuestionsSpent, AttemptsSpent.
    """
    if min(len(set(update.patients)), update.rows) < permit.least_patients:
        raise CohortTooSmall
    _check_bounds(update, permit)
    if permit.privacy is not None:
        _check_privacy(update, permit, permit.privacy)
    receipt = ledger.reserve(charge(permit, update.attempt, update.question, update.patients))
    if receipt.again:
        raise AlreadyLetOut
    # A crash from here on costs the budget of this attempt and discloses nothing: the debit is durable, no noise
    # exists.
    totals = update.totals
    if permit.privacy is not None:
        totals = _with_noise(update, grid.share(permit, permit.privacy), noise)
    encoded = bytes(update.layout.encode(_by_field(update.layout, totals)))
    upload = masks(encoded)
    if len(upload) != len(encoded):
        raise MasksBroken(
            "the masks changed the size of the contribution", do="open the attempt again, and report this"
        )
    return Masked(attempt=update.attempt, upload=upload, layout=layout_digest(update.layout), receipt=receipt)


def layout_digest(layout: Layout) -> str:
    """Hex SHA-256 of the layout's canonical JSON."""
    return canonical.digest(msgspec.to_builtins(layout))


def _check_bounds(update: Update, permit: Permit) -> None:
    """Each element within what `rows` patients can reach, and no more patients than the ring was proved for."""
    layout, rows = update.layout, update.rows
    fits = (
        update.totals.dtype == np.int64
        and update.totals.shape == (sum(field.length for field in layout.fields),)
        and rows <= len(set(update.patients)) == len(update.patients)
        and len(update.patients) <= min(permit.most_patients, layout.most)
        and layout.sites >= len(permit.participants)
    )
    if fits:
        for field in layout.fields:
            reach = int(rows * Fraction(field.bound) * Fraction(2) ** field.scale_bits)
            part = _by_field(layout, update.totals)[field.name]
            fits = fits and -reach <= int(part.min()) and int(part.max()) <= reach
            fits = fits and (field.name != PUBLIC or part.tolist() == [rows])
    if not fits:
        raise UpdateOutOfBounds(
            "the worker's totals exceed what so many patients can make", do="look at the computation; nothing was sent"
        )


def _check_privacy(update: Update, permit: Permit, privacy: Privacy) -> None:
    share = grid.share(permit, privacy)
    noised = [field for field in update.layout.fields if field.name != PUBLIC]
    if update.bound != share.bound or any(field.scale_bits != share.bound.scale_bits for field in noised):
        raise UpdateUnbounded(
            "the rows were not cut to the permit's clipping norm on the permit's grid",
            do="use an algorithm of the platform, or apply for a permit without differential privacy",
        )
    for field in noised:
        part = _by_field(update.layout, update.totals)[field.name]
        if int(np.abs(part).max()) > update.rows * share.bound.steps:
            raise UpdateOutOfBounds(
                "a total exceeds what cut rows can make", do="look at the computation; nothing was sent"
            )
    accountants.check_slack(share, sum(field.length for field in noised), privacy)


def _with_noise(update: Update, share: grid.Share, noise: Noise) -> I64:
    parts = _by_field(update.layout, update.totals)
    return np.concatenate(
        [part if name == PUBLIC else part + noise.draw(share.sigma, len(part)) for name, part in parts.items()]
    )


def _by_field(layout: Layout, totals: I64) -> dict[str, I64]:
    out, at = {}, 0
    for field in layout.fields:
        out[field.name] = totals[at : at + field.length]
        at += field.length
    return out
