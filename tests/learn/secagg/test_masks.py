import hashlib
import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings, strategies as st

from paroma.learn.secagg import masks, unmask
from paroma.learn.secagg.layout import ContributionInvalid, Field, Layout
from paroma.learn.secagg.seeds import expand


def seed(*names):
    return hashlib.sha256(repr(names).encode()).digest()


def layout(n, first=5, second=3):
    return Layout(
        fields=(
            Field(name="a", length=first, ring=32, scale_bits=0, bound=1000.0),
            Field(name="b", length=second, ring=64, scale_bits=20, bound=1000.0),
        ),
        sites=n,
        most=10,
    )


def uploads(made, names, plain):
    out = {}
    for me in names:
        pairs = {other: seed("pair", *sorted((me, other))) for other in names if other != me}
        out[me] = masks.masker(made, masks.masks_of(me, seed("self", me), pairs))(bytes(plain[me]))
    return out


@pytest.mark.promise(1)
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.data())
def test_the_masked_sum_is_the_integer_sum_for_every_survivor_set_and_order(n, data):
    made, names = layout(n), [f"s{i}" for i in range(n)]
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    plain = {s: made.encode({"a": draw.integers(-(10**4), 10**4, 5), "b": draw.uniform(-1e4, 1e4, 3)}) for s in names}
    sent = uploads(made, names, plain)
    U = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    outside = [s for s in names if s not in U]
    total = unmask.total(
        made,
        (sent[s] for s in U),
        {s: seed("self", s) for s in U},
        {(k, j): seed("pair", *sorted((k, j))) for k, j in itertools.product(U, outside)},
    )
    oracle = {name: sum(made.steps(plain[s])[name] for s in U) for name in ("a", "b")}
    assert all((made.steps(total)[name] == oracle[name]).all() for name in oracle)


@pytest.mark.promise(1)
def test_with_one_seed_missing_the_sum_stays_masked():
    made, names = layout(4), ["s0", "s1", "s2", "s3"]
    plain = {s: made.encode({"a": [1] * 5, "b": [1.0] * 3}) for s in names}
    sent = uploads(made, names, plain)
    U = names[:3]
    self_seeds = {s: seed("self", s) for s in U}
    pair_seeds = {(k, "s3"): seed("pair", *sorted((k, "s3"))) for k in U}
    right = unmask.total(made, (sent[s] for s in U), self_seeds, pair_seeds)
    for gone in U:
        some = {s: b for s, b in self_seeds.items() if s != gone}
        assert not np.isin(
            np.frombuffer(unmask.total(made, (sent[s] for s in U), some, pair_seeds), "<u4")[:5], [3]
        ).any()
        less = {pair: s for pair, s in pair_seeds.items() if pair[0] != gone}
        assert unmask.total(made, (sent[s] for s in U), self_seeds, less) != right


def test_a_mask_is_the_key_stream_of_aes_128_in_counter_mode_over_the_whole_contribution():
    made = layout(2, first=masks.BLOCK // 4 + 3, second=masks.BLOCK // 8 + 1)  # more than one block in both fields
    data = bytearray(made.size)
    masks.apply(made, data, [(seed("x"), 1)])
    key = expand(seed("x"), b"stream", length=16)
    assert bytes(data) == Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(made.size))
    masks.apply(made, data, [(seed("x"), -1)])
    assert not any(data)


def test_a_contribution_of_another_size_is_refused():
    made = layout(2)
    with pytest.raises(ContributionInvalid):
        unmask.total(made, [bytes(made.size + 1)], {}, {})
