"""Become somebody: make a key here, and have it enrolled with a single-use line. No secret leaves the machine.

Every step may be repeated with the same line: the same key gets the same answer. The order is key, enrolment, profile;
whatever is cut off between them is taken up again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import Randomness
from paroma.kernel.wire.network import (
    HttpsNetwork,
    LoopbackNetwork,
    Network,
    closing,
    trusting,
    trusting_nobody_yet,
)
from paroma.sdk import profile as profiles
from paroma.sdk.profile import Profile
from paroma.trust.channel.caller import Caller, refused_by
from paroma.trust.federation import pinning
from paroma.trust.identity.login_line import LoginLine
from paroma.trust.keys import files
from paroma.trust.keys.signing import SigningKey

ENROL_PATH: Final = "/people/enrol"
WAIT_SECONDS: Final = 30.0
_NEW_KEY: Final = "key.new.pem"


class ProfileTaken(Refused):
    """The profile is somebody at another place."""


class _Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an enrolment; what else stands in it is passed over."""

    person: str
    name: str
    role: str
    site: str | None = None
    place: str = ""


class Ways:
    """How to reach an origin: before its authority is known (`unknown`), and after (`known`)."""

    def unknown(self, origin: str) -> Network:
        """A network that checks no certificate yet: only for fetching the authority that a fingerprint pins."""
        return HttpsNetwork([origin], trust=trusting_nobody_yet(), most_reply_bytes=pinning.MOST_BYTES)

    def known(self, origin: str, authority: str | None) -> Network:
        """A network to `origin` alone, trusting `authority` (PEM) alone; without TLS on this machine."""
        if authority is None:
            return LoopbackNetwork([origin])
        return HttpsNetwork([origin], trust=trusting(authority.encode()))


async def login(
    line: LoginLine,
    where: Path,
    *,
    clock: Clock,
    randomness: Randomness,
    disk: Disk,
    ways: Ways | None = None,
    new_key: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Enrol this machine's key in the profile folder `where` and keep who that is. new_key: not with the key that is
    there. say: gets a sentence at each step.

    Raises ProfileTaken, AuthorityWrong, what the enrolment is refused for, KeyFileUnsafe, PeerUnavailable, OSError.
    """
    _free(where, line.url)
    reach = ways if ways is not None else Ways()
    authority = None
    if line.fingerprint:
        async with closing(reach.unknown(line.url)) as unknown:
            found = await pinning.fetch_ca(unknown, line.url, line.fingerprint)
        authority = found.decode("ascii")
        say(f"{line.url} shows the authority that the line names")
    file = where / (_NEW_KEY if new_key else profiles.KEY)
    key = files.load_or_create(file, disk, randomness)
    say(f"the key lies in {file} and stays there")
    async with closing(reach.known(line.url, authority)) as network:
        enrolled = await _enrol(network, key, line, clock=clock, randomness=randomness)
    if new_key:
        disk.replace(where / profiles.KEY, file.read_bytes(), mode=0o600)
        disk.remove(file)
    made = Profile(
        origin=line.url,
        authority=authority,
        person=enrolled.person,
        name=enrolled.name,
        role=enrolled.role,
        site=enrolled.site,
        place=enrolled.place,
    )
    profiles.save(where, made, disk)
    return made


async def _enrol(
    network: Network, key: SigningKey, line: LoginLine, *, clock: Clock, randomness: Randomness
) -> _Enrolled:
    caller = Caller(network, key, "nobody-yet", line.url, clock=clock, randomness=randomness)
    body = msgspec.json.encode({"code": line.code, "jwk": key.public_jwk})
    reply = await caller.prove("POST", ENROL_PATH, body, kind="application/json", wait=WAIT_SECONDS)
    if reply.status >= 300:
        raise refused_by(reply)
    try:
        return msgspec.json.decode(reply.body, type=_Enrolled)
    except msgspec.DecodeError as problem:
        raise BadInput(
            f"the answer of `{line.url}` cannot be read", do="upgrade paroma here or there, then repeat"
        ) from problem


def _free(where: Path, origin: str) -> None:
    try:
        there = profiles.load(where)
    except profiles.NotLoggedIn:
        return
    if there.origin != origin:
        raise ProfileTaken(
            f"profile `{where.name}` is {there.name} at {there.origin}",
            do="log in under another name: `paroma login --profile NAME LINE`",
        )
