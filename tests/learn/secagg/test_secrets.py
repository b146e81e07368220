import hashlib

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings, strategies as st

from paroma.kernel.randomness import OsRandomness, SeededRandomness
from paroma.learn.secagg import agreement, sealing, seeds
from paroma.learn.secagg.agreement import AgreementFailed, MlKem768

KEM = MlKem768()
E = hashlib.sha256(b"opening entry").hexdigest()


def pair(context=b"run, transcript, a, b", at_b=None):
    a, b = (agreement.make_keys(KEM, OsRandomness()) for _ in range(2))
    secret, ciphertext, confirmation = agreement.offer(
        KEM, a, x25519=b.x25519, public=b.kem, context=context, randomness=OsRandomness()
    )
    sent = {"x25519": a.x25519, "ciphertext": ciphertext, "confirmation": confirmation, "context": context}
    return secret, lambda **change: agreement.accept(KEM, b, **{**sent, **change}), sent


def test_both_ends_hold_one_secret_and_no_two_pairs_the_same():
    first, accept, _ = pair()
    assert accept() == first
    assert len(first) == 32
    assert pair()[0] != first


@pytest.mark.promise(1)
@pytest.mark.parametrize("what", ["x25519", "ciphertext", "confirmation", "context"])
def test_whatever_is_changed_on_the_way_there_is_no_secret(what):
    _, accept, sent = pair()
    for at in (0, len(sent[what]) // 2, len(sent[what]) - 1):
        changed = bytearray(sent[what])
        changed[at] ^= 1
        with pytest.raises(AgreementFailed):
            accept(**{what: bytes(changed)})
    with pytest.raises(AgreementFailed):
        accept(**{what: sent[what][:-1]})


def test_a_point_of_low_order_is_refused():
    _, accept, _ = pair()
    with pytest.raises(AgreementFailed):
        accept(x25519=bytes(32))
    with pytest.raises(AgreementFailed):
        agreement.offer(
            KEM,
            agreement.make_keys(KEM, OsRandomness()),
            x25519=bytes(32),
            public=bytes(1184),
            context=b"",
            randomness=OsRandomness(),
        )


def test_keys_follow_the_seed():
    one, two = (agreement.make_keys(KEM, SeededRandomness(7)) for _ in range(2))
    assert one == two
    assert len(one.kem) == 1184


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=20), st.integers(1, 100))
def test_expand_is_hkdf_with_sha256(secret, label, length):
    info = b"paroma/secagg/v1\n" + len(label).to_bytes(8, "big") + label + (1).to_bytes(8, "big") + b"c"
    assert seeds.expand(secret, label, b"c", length=length) == HKDF(SHA256(), length, None, info).derive(secret)


def test_no_two_purposes_share_a_seed():
    other = hashlib.sha256(b"another entry").hexdigest()
    all_of_them = [
        f(secret, entry)
        for f in (seeds.self_seed, seeds.pair_seed)
        for secret in (b"1" * 32, b"2" * 32)
        for entry in (E, other)
    ]
    all_of_them += [seeds.coefficients_key(b"1" * 32, E, what) for what in ("self", "pair a", "pair b")]
    assert len(set(all_of_them)) == len(all_of_them)
    assert seeds.expand(b"s", b"ab", b"c") != seeds.expand(b"s", b"a", b"bc")


@pytest.mark.promise(1)
def test_a_box_opens_only_for_what_it_binds():
    bound = {"entry": E, "sender": "a", "receiver": "b", "what": "self"}
    box = sealing.seal(b"k" * 32, b"a share", **bound)
    assert sealing.open_box(b"k" * 32, box, **bound) == b"a share"
    assert len(box) == len(b"a share") + sealing.OVERHEAD_BYTES
    for change in (
        {"entry": E[::-1]},
        {"sender": "c"},
        {"receiver": "c"},
        {"what": "pairs"},
        {"sender": "b", "receiver": "a"},
    ):
        with pytest.raises(sealing.BoxBroken):
            sealing.open_box(b"k" * 32, box, **{**bound, **change})
    for broken in (box[:-1], box[:3], b"", bytes([box[0] ^ 1]) + box[1:]):
        with pytest.raises(sealing.BoxBroken):
            sealing.open_box(b"k" * 32, broken, **bound)
    with pytest.raises(sealing.BoxBroken):
        sealing.open_box(b"j" * 32, box, **bound)
