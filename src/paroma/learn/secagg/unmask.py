"""The hub's side: which masks are left in a sum over U, and taking them away.

In the sum over U the masks of pairs inside U have cancelled. Left are the self masks of U and the masks between U and
those outside, and only these seeds are ever given. Source: Bonawitz et al. 2017, section 4.
"""

from collections.abc import Iterable, Mapping

from paroma.kernel.ids import SiteId
from paroma.learn.secagg import masks
from paroma.learn.secagg.layout import Layout


def left(self_seeds: Mapping[SiteId, bytes], pair_seeds: Mapping[tuple[SiteId, SiteId], bytes]) -> list[masks.Mask]:
    """What to apply to the sum over U. self_seeds: b_j for j in U; pair_seeds: s_kj for (k in U, j outside)."""
    return [
        *((seed, -1) for _site, seed in sorted(self_seeds.items())),
        *((seed, -masks.sign_of(k, j)) for (k, j), seed in sorted(pair_seeds.items())),
    ]


def total(
    layout: Layout,
    uploads: Iterable[bytes | bytearray | memoryview],
    self_seeds: Mapping[SiteId, bytes],
    pair_seeds: Mapping[tuple[SiteId, SiteId], bytes],
) -> bytes:
    """The sum over U in wire bytes, without masks. uploads: the masked bytes of every member, in any order, read one
    by one.

    Raises ContributionInvalid if one has another size.
    """
    added = bytearray(layout.size)
    for one in uploads:
        masks.add(layout, added, one)
    masks.apply(layout, added, left(self_seeds, pair_seeds))
    return bytes(added)
