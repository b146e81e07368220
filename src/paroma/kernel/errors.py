"""The base of all errors: a sentence that says what is the case, and one that says what to do.

Each room owns its errors and derives them from `ParomaError`. They are caught by name, where somebody can act.
"""


class ParomaError(Exception):
    """Something that a reader can act on. `do` is the next step, in the imperative, lower case."""

    def __init__(self, message: str, *, do: str) -> None:
        super().__init__(message)
        self.message = message
        self.do = do

    def __str__(self) -> str:
        return f"{self.message}; {self.do}"


class BadInput(ParomaError):
    """What came in cannot be read or breaks a limit. Retrying the same bytes changes nothing."""


class Refused(ParomaError):
    """A rule says no. `do` names the fact that would change it."""


class Unavailable(ParomaError):
    """Something that is needed cannot be reached just now. Retrying later may help."""
