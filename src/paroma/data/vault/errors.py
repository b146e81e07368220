"""What can be wrong with a vault, and what to do."""

from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable


class VaultUnavailable(Unavailable):
    """A disk of the vault did not take or give what it should; nothing of this act was acknowledged."""

    def __init__(self, problem: OSError, act: str) -> None:
        super().__init__(
            f"the vault cannot {act}: {problem.strerror or problem} (`{problem.filename or 'no file named'}`)",
            do="look at its disk and at the replica folders of the root key, then repeat; repeating is safe",
        )


class VaultInUse(Unavailable):
    """Another process has this vault open: there is one writer."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"another process has the vault `{folder}` open", do="stop the site, or do it through the running site"
        )


class VaultLocked(Refused):
    """There are records, but their root key is on no replica."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"the vault `{folder}` holds records, and no replica folder holds its root key",
            do="mount the replica folders that the settings name; without the root key the records cannot be read",
        )


class RootWrapped(Refused):
    """The root key is sealed under a key that is not among those named."""

    def __init__(self, path: str, named: int) -> None:
        what = f"none of the {named} keys that `root_keys` names wrapped" if named else "`root_keys` names no key for"
        super().__init__(
            f"{what} the vault's root key in `{path}`",
            do="name the key that wrapped it in `root_keys`, as well; the first one named is used from then on",
        )


class VaultOutdated(Refused):
    """The files are older than the root key: a backup from before an erasure."""

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"these key pages are from before the erasure with number {epoch}, and their root key was destroyed",
            do="restore the key pages from the live standby, not from a backup",
        )


class VaultDamaged(ParomaError):
    """A sealed message does not open: bytes were changed, swapped or lost."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was changed or damaged: its seal does not hold",
            do="take this disk out of service and restore the file from the standby",
        )


class PatientUnknown(BadInput):
    """The vault holds nothing under this id."""

    def __init__(self) -> None:
        super().__init__("the vault holds no records of this patient", do="check the id, or bring the records in first")


class ErasedBefore(Refused):
    """Records of a patient come in again that were erased on request."""

    def __init__(self, how_many: int) -> None:
        super().__init__(
            f"{how_many} of these patients were erased on their request",
            do="leave their records out, or name these patients for readmission if they asked to be kept again",
        )


class RegisterMoved(Refused):
    """Somebody wrote the register in between."""

    def __init__(self, name: str, found: int, expected: int | None = None) -> None:
        wanted = "other bytes" if expected is None else f"epoch {expected}"
        super().__init__(
            f"the register `{name}` is at epoch {found}, expected {wanted}",
            do="read it again, decide again, then swap",
        )


class RegisterOutdated(Refused):
    """The register is older than what the log says: a restored backup."""

    def __init__(self, name: str, found: int, anchored: int) -> None:
        super().__init__(
            f"the register `{name}` is at epoch {found}, but the log anchors epoch {anchored}",
            do="restore the newest copy of the register; an older one is never used",
        )
