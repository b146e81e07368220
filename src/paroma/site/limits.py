"""What a decision obliges a contribution to: limits for the worker, what the permit itself has to keep to, and how a cut is told.

The strictest of all policies holds, and the site's own settings where they are stricter still. A contribution that reaches a limit is
cut there: nothing of it leaves, the log says which limit it was and what this run had done until then, and the run goes on
without this site's contribution to that attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from paroma.kernel.canonical import Json
from paroma.kernel.errors import Refused
from paroma.learn.sandbox.task import Ending, Limits, WorkerFailed
from paroma.trust.permit.permit import Permit
from paroma.trust.policy.obligations import Obligations

MIB: Final = 1 << 20
CUTS: Final = {
    Ending.LATE: "seconds",
    Ending.CPU: "cpu_seconds",
    Ending.MEMORY: "memory_mib",
    Ending.REPLY: "upload_mib",
}


class ObligationUnmet(Refused):
    """The permit asks for more, or promises less, than a policy at this site obliges to."""


class UploadTooLarge(Refused):
    """The masked contribution has more bytes than a policy at this site lets out."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the contribution has {size} bytes, the policies let out {most} MiB",
            do="ask with fewer weights or figures",
        )


@dataclass(slots=True, kw_only=True)
class Meter:
    """One contribution while it is made. obliged: by its decision, which comes first. seconds: of its worker so far."""

    obliged: Obligations
    seconds: float = 0.0


def worker(obliged: Obligations, own_seconds: float) -> Limits:
    """Limits of the worker: the policies', or the site's own (s), whichever is stricter."""
    own = Limits(seconds=own_seconds)
    return replace(
        own,
        seconds=own.seconds if obliged.seconds is None else min(own.seconds, obliged.seconds),
        cpu_seconds=own.cpu_seconds if obliged.cpu_seconds is None else obliged.cpu_seconds,
        memory=own.memory if obliged.memory_mib is None else min(own.memory, obliged.memory_mib * MIB),
        reply=own.reply if obliged.upload_mib is None else min(own.reply, obliged.upload_mib * MIB),
    )


def require_kept(obliged: Obligations, permit: Permit) -> None:
    """Raise ObligationUnmet unless the permit itself keeps to what the policies oblige to."""
    epsilon = 0 if permit.privacy is None else ceil(1000 * permit.privacy.epsilon)
    checks = (
        (obliged.mode in {None, permit.mode}, f"mode `{permit.mode}`", f"mode `{obliged.mode}`"),
        (
            permit.least_patients >= (obliged.least_patients or 0),
            f"a floor of {permit.least_patients} patients",
            f"{obliged.least_patients} at least",
        ),
        (
            len(permit.participants) >= (obliged.least_sites or 0),
            f"{len(permit.participants)} sites",
            f"{obliged.least_sites} at least",
        ),
        (
            obliged.epsilon_thousandths is None
            or (permit.privacy is not None and epsilon <= obliged.epsilon_thousandths),
            f"epsilon {epsilon / 1000:g}" if permit.privacy is not None else "no differential privacy",
            f"epsilon {(obliged.epsilon_thousandths or 0) / 1000:g} at most",
        ),
    )
    for holds, has, wanted in checks:
        if not holds:
            raise ObligationUnmet(
                f"the permit has {has}, the policies at this site oblige to {wanted}",
                do="apply for a permit that keeps to it",
            )


def require_upload(obliged: Obligations, size: int) -> None:
    """Raise UploadTooLarge where `size` (bytes) is over the limit."""
    if obliged.upload_mib is not None and size > obliged.upload_mib * MIB:
        raise UploadTooLarge(size, obliged.upload_mib)


def cut(problem: Exception, meter: Meter | None, own_seconds: float) -> Mapping[str, Json] | None:
    """How a cut at a limit is told in the log: which, how high it was, how long the worker had run; None for another problem."""
    if meter is None:
        return None
    if isinstance(problem, UploadTooLarge):
        return {"limit": "upload_mib", "most": meter.obliged.upload_mib, "seconds": round(meter.seconds, 3)}
    name = CUTS.get(problem.ending) if isinstance(problem, WorkerFailed) else None
    if name is None:
        return None
    given = worker(meter.obliged, own_seconds)
    most = {
        "seconds": given.seconds,
        "cpu_seconds": given.cpu_seconds,
        "memory_mib": given.memory // MIB,
        "upload_mib": given.reply // MIB,
    }
    return {"limit": name, "most": most[name], "seconds": round(meter.seconds, 3)}
