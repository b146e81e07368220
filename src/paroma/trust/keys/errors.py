"""What can be wrong with a key that lives elsewhere, and what to do."""

from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable


class KeyUriInvalid(BadInput):
    """The name of a key cannot be read."""


class KeyLibraryMissing(Unavailable):
    """The program or module that speaks with the key's home is not on this machine."""


class KeyPinWrong(Refused):
    """The key's home does not take the PIN, or is locked after too many wrong ones."""


class KeyAway(Unavailable):
    """The key's home cannot be reached: unplugged, stopped, or no way there."""


class KeyGone(Refused):
    """There is no such key: it was destroyed, or never made. Retrying changes nothing."""


class KeyThere(Refused):
    """A key of this name is there already; none is ever overwritten."""


class KeyUnfit(BadInput):
    """The key is of another kind than its use needs."""


class NotWrappedByThis(ParomaError):
    """The bytes were wrapped by another key, for another purpose, or were changed."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            f"the key `{uri}` did not wrap these bytes, or they were changed since",
            do="name the key that wrapped them, as well",
        )
