"""`paroma.connect()`: one person's way to their hub, from a notebook or a script.

import paroma
study = paroma.connect().study("Heart disease in four hospitals")
print(study.logistic("num ~ age + sex + chol").summary())
"""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from paroma.data.catalogue.data_set import DataSet
from paroma.kernel.clock import Clock, SystemClock
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import DataSetId, printable
from paroma.kernel.randomness import OsRandomness, Randomness
from paroma.learn.runs.report import RunReport
from paroma.sdk import profile as profiles, study as studies
from paroma.sdk.login import Ways
from paroma.sdk.profile import Profile
from paroma.sdk.run import Run
from paroma.sdk.study import Study
from paroma.sdk.talk import Talk
from paroma.trust.keys import files
from paroma.trust.permit.permit import OrganisationKind, Privacy
from paroma.trust.permit.wish import Standing, Wish


class StudyUnknown(BadInput):
    """No study of this name."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A hospital of the federation. seen: seconds since anything was heard of it, 0 while it is connected, None: not known."""

    site: str
    title: str
    owner: str
    status: str
    seen: float | None = None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A data set, and the titles of the sites that hold records of it."""

    data_set: DataSet
    sites: tuple[str, ...]


class LogKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What the federation log is checked with. witnesses: site to cosignature key; titles: site to title."""

    origin: str
    vkey: str
    witnesses: dict[str, str]
    titles: dict[str, str]
    quorum: int


class _Link(msgspec.Struct, frozen=True):
    url: str


class Connection:
    """A person's connection to a hub. Calls wait for their answer."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    @property
    def profile(self) -> Profile:
        """Who this is, and where."""
        return self.talk.profile

    def members(self) -> tuple[Member, ...]:
        """The hospitals of the federation."""
        return self.talk.get("/api/members", tuple[Member, ...])

    def data_sets(self) -> tuple[Held, ...]:
        """What can be applied for: descriptions, no record."""
        return self.talk.get("/api/data-sets", tuple[Held, ...])

    def data_set(self, name: str) -> DataSet:
        """The data set of this name or id. Raises BadInput."""
        found = [held.data_set for held in self.data_sets()]
        for one in found:
            if name in {one.id, one.name, one.title}:
                return one
        there = ", ".join(f"`{one.name}`" for one in found) or "none yet"
        raise BadInput(f"there is no data set `{printable(name)}`", do=f"name one that is there: {there}")

    def standings(self) -> tuple[Standing, ...]:
        """Your applications and permits, newest first."""
        return self.talk.get("/api/applications", tuple[Standing, ...])

    def standing(self, permit: str) -> Standing:
        """One application or permit, by its permit's id."""
        return self.talk.get(f"/api/applications/{_part(permit)}", Standing)

    def revoke(self, permit: str, reason: str = "") -> Standing:
        """End a permit before its time, and all its runs at once."""
        return self.talk.post(f"/api/permits/{_part(permit)}/revoke", {"reason": reason}, Standing)

    def studies(self) -> tuple[Study, ...]:
        """Your studies, the one with the newest application first."""
        grouped: dict[str, list[Standing]] = {}
        for one in self.standings():
            grouped.setdefault(one.permit.study, []).append(one)
        return tuple(Study(self.talk, group[0].permit.study, group) for group in grouped.values())

    def study(self, name: str) -> Study:
        """The study of this title or id; the newest of several with one title. Raises StudyUnknown."""
        found = self.studies()
        for one in found:
            if name in {one.id, one.title}:
                return one
        there = ", ".join(f"`{one.title}`" for one in found) or "none yet: `apply` for one"
        raise StudyUnknown(f"you have no study `{printable(name)}`", do=f"name one of yours: {there}")

    def apply(
        self,
        title: str,
        *,
        purpose: str,
        data_set: str,
        features: Sequence[str],
        algorithms: Sequence[str],
        benefit: str,
        privacy: Privacy | None = None,
        code: str | None = None,
        days: float = 365.0,
        least_patients: int = 10,
        least_owners: int = 3,
        counts_to: int = 5,
        colluders: int = 0,
        dropouts: int = 1,
        questions: int = 40,
        organisation: str = "unknown",
        organisation_kind: OrganisationKind = "unknown",
        country: str = "unknown",
    ) -> Study:
        """Apply for a new study. data_set: name or id. benefit: what patients gain, in words that they understand.
        days: how long the permit is to hold. Raises Refused, BadInput, Unavailable.
        """
        wish = Wish(
            title=title,
            purpose=purpose,
            data_set=DataSetId(self.data_set(data_set).id),
            features=tuple(features),
            algorithms=tuple(algorithms),
            benefit=benefit,
            privacy=privacy,
            code=code,
            days=days,
            least_patients=least_patients,
            least_owners=least_owners,
            counts_to=counts_to,
            colluders=colluders,
            dropouts=dropouts,
            questions=questions,
            organisation=organisation,
            organisation_kind=organisation_kind,
            country=country,
        )
        standing = studies.submit(self.talk, wish)
        return Study(self.talk, standing.permit.study, (standing,))

    def runs(self) -> tuple[Run, ...]:
        """The runs that you may see, newest first."""
        return tuple(Run(self.talk, one) for one in self.talk.get("/api/runs", list[RunReport]))

    def run(self, name: str) -> Run:
        """The run of this id."""
        return Run(self.talk, self.talk.get(f"/api/runs/{_part(name)}", RunReport))

    def link(self, to: str = "/") -> str:
        """An address that opens the page `to` in a browser, once, within 15 minutes."""
        return self.talk.post("/people/browser-link", {"to": to}, _Link).url

    def log_keys(self) -> LogKeys:
        """What the federation log is checked with, as the hub says. Who wants more than the hub's word compares it."""
        return self.talk.get("/log-keys", LogKeys)

    def log_file(self, path: str) -> bytes:
        """A file of the federation log: `checkpoint`, or a tile's path."""
        return self.talk.file(f"/log/{path}")

    def close(self) -> None:
        """End the connection."""
        self.talk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.profile.name}, {self.profile.role}, at {self.profile.origin}>"


def talk_as(
    profile: str | None = None,
    *,
    ways: Ways | None = None,
    clock: Clock | None = None,
    randomness: Randomness | None = None,
) -> Talk:
    """Speak as the profile of this name, or as the one that the environment chooses.

    Raises NotLoggedIn, ProfileUnsafe, KeyFileUnsafe.
    """
    where = profiles.folder(os.environ, profile)
    who = profiles.load(where)
    try:
        key = files.load(where / profiles.KEY)
    except FileNotFoundError:
        raise profiles.NotLoggedIn(where.name) from None
    network = (ways or Ways()).known(who.origin, who.authority)
    return Talk(who, key, network, clock=clock or SystemClock(), randomness=randomness or OsRandomness())


def connect(profile: str | None = None) -> Connection:
    """Your connection to the hub where you logged in (`paroma login`). Raises NotLoggedIn, KeyFileUnsafe."""
    return Connection(talk_as(profile))


def _part(name: str) -> str:
    if not name.isascii() or not name.replace("-", "").isalnum():  # it becomes a part of an address
        raise BadInput(f"`{printable(name)}` is no id", do="copy the whole id, such as `run-0f3k...`")
    return name
