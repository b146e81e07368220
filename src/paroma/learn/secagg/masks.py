"""Masks: key streams of AES-128-CTR, added in the ring so that those of pairs cancel in the sum.

y_i = x_i + PRG(b_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij), in the order of names. Complete
graph, always. Each seed's stream runs over the whole contribution. Work goes block by block, all streams on one block
before the next, so that it stays in the cache. Source: Bonawitz et al. 2017 (ePrint 2017/281), section 4.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from paroma.kernel.ids import SiteId
from paroma.learn.secagg.layout import Layout
from paroma.learn.secagg.seeds import expand

BLOCK = 1 << 18  # bytes: fits the second-level cache together with the key stream
Mask = tuple[bytes, int]  # a seed, and +1 to add its stream or -1 to take it away


def sign_of(me: SiteId, other: SiteId) -> int:
    """+1 if `me` adds the mask of this pair, -1 if it takes it away."""
    return 1 if me < other else -1


def masks_of(me: SiteId, self_seed: bytes, pair_seeds: Mapping[SiteId, bytes]) -> list[Mask]:
    """All masks that a site puts on. pair_seeds: one for every other participant."""
    return [(self_seed, 1), *((seed, sign_of(me, other)) for other, seed in sorted(pair_seeds.items()))]


def apply(layout: Layout, data: bytearray, masks: Iterable[Mask]) -> None:
    """Put masks on the contribution `data`, or take them away, in place. Raises ContributionInvalid for another
    size.
    """
    streams = [(_stream(seed), sign) for seed, sign in masks]
    key_stream = bytearray(BLOCK)
    for _field, part in layout.parts(data):
        kept = np.frombuffer(key_stream, part.dtype)
        step = BLOCK // part.itemsize
        for at in range(0, part.size, step):
            block = part[at : at + step]
            view = memoryview(key_stream)[: block.nbytes]
            for stream, sign in streams:
                stream.update_into(_ZEROS[: block.nbytes], view)
                (np.add if sign > 0 else np.subtract)(block, kept[: block.size], out=block)


def add(layout: Layout, total: bytearray, masked: bytes | bytearray | memoryview) -> None:
    """Add one site's masked bytes to the total, in the ring, in place. Raises ContributionInvalid for another size."""
    for (_field, into), (_same, part) in zip(layout.parts(total), layout.parts(masked), strict=True):
        np.add(into, part, out=into)


def masker(layout: Layout, masks: Sequence[Mask]) -> Callable[[bytes], bytes]:
    """What the door is given: a function that puts these masks on an encoded contribution and returns the masked
    bytes.
    """

    def put_on(plain: bytes) -> bytes:
        data = bytearray(plain)
        apply(layout, data, masks)
        return bytes(data)

    return put_on


_ZEROS = memoryview(bytes(BLOCK))


def _stream(seed: bytes) -> CipherContext:
    # the seed itself is never a key: what it commits to, and what it masks with, are derived apart
    return Cipher(algorithms.AES(expand(seed, b"stream", length=16)), modes.CTR(bytes(16))).encryptor()
