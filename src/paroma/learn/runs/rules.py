"""The arithmetic of survivor sets, the same at the hub and at every site."""

from collections.abc import Iterable

from paroma.kernel.ids import SiteId
from paroma.learn.runs.messages import Member, Opening, Participant
from paroma.learn.secagg.shamir import threshold


def fits(participants: tuple[Participant, ...], *, m: int, c: int) -> bool:
    """Whether these participants can answer a question at all: fewer than a third collude, and m + c is within the
    threshold.

    Losses below a third then never end an attempt.
    """
    n = len(participants)
    return (
        3 * c < n and m >= 1 and m + c <= threshold(n) and owners(participants, (p.site for p in participants)) >= m + c
    )


def owners(participants: Iterable[Participant], sites: Iterable[SiteId]) -> int:
    """How many owners these sites have; one owner's sites count once."""
    owner = {p.site: p.owner for p in participants}
    return len({owner[site] for site in sites if site in owner})


def large_enough(opening: Opening, sites: tuple[SiteId, ...]) -> bool:
    """|U| >= max(t, m + c), and still m owners when the c that collude are taken away."""
    return len(sites) >= opening.least and owners(opening.participants, sites) >= opening.m + opening.c


def sites_of(members: tuple[Member, ...]) -> tuple[SiteId, ...]:
    """The sites in a survivor set."""
    return tuple(member.site for member in members)


def well_formed(opening: Opening, members: tuple[Member, ...]) -> bool:
    """Participants only, each once, in the order of names, and large enough."""
    sites = sites_of(members)
    known = {p.site for p in opening.participants}
    return sites == tuple(sorted(set(sites))) and known.issuperset(sites) and large_enough(opening, sites)


def proper_subset(smaller: tuple[Member, ...], larger: tuple[Member, ...]) -> bool:
    """Whether `smaller` lacks a member of `larger` and has no other, upload hashes included."""
    return set(smaller) < set(larger)
