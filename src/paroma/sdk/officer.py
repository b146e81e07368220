"""A hospital's officer at their own site: what is asked, yes or no, and the pause."""

from typing import Literal

import msgspec

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import PersonId, SiteId, printable
from paroma.sdk.talk import Talk
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit


class RequestUnknown(BadInput):
    """Nobody asks this hospital for such a permit."""


class OtherPermit(Refused):
    """The permit is not the one whose digest was read."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the permit has the digest `{found}`, not the one that you named: nothing was signed",
            do="open its page again and read it: `paroma site open`",
        )


class LogSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A log as the site sees it. trouble: what is wrong with it, or empty."""

    size: int
    trouble: str | None = None
    cosigned: int | bool | None = None


class WallSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A wall of the sandbox: whether it stands, and why not."""

    name: str
    there: bool
    why: str = ""


class SiteSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The site, for its officer. runs: as the site lists them."""

    site: SiteId
    title: str
    owner: str
    hub: str
    status: str
    log: LogSeen
    federation_log: LogSeen
    walls: tuple[WallSeen, ...]
    paused: bool
    patients: int
    runs: list[object] = []


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """A permit that somebody asks for. reasons: of the site's own policies, where they say no."""

    permit: Permit
    asked_by: str
    benefit: str
    state: Literal["waiting", "signed", "refused", "valid", "revoked"]
    reasons: list[object] = []
    patients: int | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What ended: a permit at this site, or somebody's key. at: unix s, since when. again: it had been done before."""

    id: str
    name: str
    at: float
    again: bool


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of an erasure. tag: names the patient to nobody but the site. entry: of the site log. epoch: of the root
    key that replaced the destroyed one; replicas: on how many. at: unix s. again: it had been done before.
    """

    tag: str
    entry: int
    epoch: int
    replicas: int
    at: float
    again: bool = False


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """A patient's no. number: of the receipt. entry: of the site log. seconds: until it was durable."""

    number: str
    entry: int
    seconds: float


class _Link(msgspec.Struct, frozen=True):
    url: str


class Officer:
    """An officer's connection to their site."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    def site(self) -> SiteSeen:
        """How the site is."""
        return self.talk.get("/api/site", SiteSeen)

    def requests(self) -> tuple[Requested, ...]:
        """What is asked of this hospital."""
        return self.talk.get("/api/requests", tuple[Requested, ...])

    def request(self, permit: str) -> Requested:
        """The request for this permit. Raises RequestUnknown."""
        for one in self.requests():
            if one.permit.id == permit:
                return one
        raise RequestUnknown(
            f"nobody asks this hospital for permit `{printable(permit)}`", do="list them: `paroma site requests`"
        )

    def sign(self, permit: str, *, digest: str | None = None) -> Requested:
        """Sign exactly the permit that was asked for, with the officer's own key, here.

        digest: hex SHA-256 of the permit that the officer read. Raises PermitInvalid, OtherPermit.
        """
        asked = self.request(permit)
        if digest is not None and permits.digest(asked.permit) != digest.strip().lower():
            raise OtherPermit(permits.digest(asked.permit))
        person, site = PersonId(self.talk.profile.person), self.site().site
        signature = permits.sign(asked.permit, site, person, self.talk.key, float(int(self.talk.clock.now())))
        self.talk.act(f"/api/requests/{asked.permit.id}/sign", signature)
        return asked

    def refuse(self, permit: str, reason: str) -> Requested:
        """Say no, with a reason that the applicant reads."""
        asked = self.request(permit)
        self.talk.act(f"/api/requests/{asked.permit.id}/refuse", {"reason": reason})
        return asked

    def revoke(self, permit: str, reason: str) -> Ended:
        """End a valid permit at this site: nothing more under it, whatever runs. The hub is told why."""
        asked = self.request(permit)
        return self.talk.post(f"/api/permits/{asked.permit.id}/revoke", {"reason": reason}, Ended)

    def revoke_person(self, person: str, reason: str) -> Ended:
        """End the key of one of this site's people. Permits that an officer signed with it hold no more."""
        return self.talk.post(f"/api/people/{_part(person)}/revoke", {"reason": reason}, Ended)

    def erase(self, patient: str, reason: str) -> Erased:
        """Destroy a patient's records, for good and in every backup."""
        return self.talk.post(f"/api/patients/{_part(patient)}/erase", {"reason": reason}, Erased, wait=60.0)

    def withdraw(self, patient: str) -> Withdrawal:
        """Write down a patient's no to every use, on their behalf."""
        return self.talk.post(f"/api/patients/{_part(patient)}/withdraw", {}, Withdrawal)

    def patient_link(self, patient: str) -> str:
        """An address that opens a patient's pages, once, within 15 minutes."""
        return self.talk.post(f"/api/patients/{_part(patient)}/link", {}, _Link).url

    def pause(self) -> None:
        """Take part in nothing until `resume`. Withdrawals are recorded all the same."""
        self.talk.act("/api/pause")

    def resume(self) -> None:
        """Take part again."""
        self.talk.act("/api/resume")

    def link(self, to: str = "/") -> str:
        """An address that opens the page `to` in a browser, once, within 15 minutes."""
        return self.talk.post("/people/browser-link", {"to": to}, _Link).url


def _part(name: str) -> str:
    if (
        not name.isascii() or not name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    ):  # a part of an address
        raise BadInput(f"`{printable(name)}` is no id", do="copy the whole id")
    return name
