"""Acting as one of your profiles: the connection is open for as long as a command needs it, and closed however it ends.

The SDK is loaded when somebody acts: `paroma site run` needs nothing of it.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paroma.sdk.officer import Officer
    from paroma.sdk.policy import PolicyDesk


@contextmanager
def officer(profile: str | None) -> Iterator["Officer"]:
    """The officer, or the desk, of the site that a profile is for."""
    from paroma.sdk.connection import talk_as
    from paroma.sdk.officer import Officer

    with closing(talk_as(profile)) as talk:
        yield Officer(talk)


@contextmanager
def policy_desk(profile: str | None) -> Iterator["PolicyDesk"]:
    """The policies of the hub or site that a profile is for."""
    from paroma.sdk.connection import talk_as
    from paroma.sdk.policy import PolicyDesk

    with closing(talk_as(profile)) as talk:
        yield PolicyDesk(talk)
