import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from paroma.kernel import canonical
from paroma.trust.permit.permit import (
    DOMAIN,
    Participant,
    Permit,
    PermitExpired,
    PermitInvalid,
    PermitNotYet,
    PermitUnsigned,
    Privacy,
    Signature,
    SignedPermit,
    check,
    digest,
    message,
    sign,
    threshold,
    verify,
)

change = msgspec.structs.replace


@pytest.mark.promise(3)
def test_a_permit_signed_by_all_officers_holds_during_its_term(signed, officers, words):
    for at in (words.NOW, words.NOW + 1, words.NOW + 86399.9):
        verify(signed, officers, at, study="study-1")


@pytest.mark.promise(3)
def test_it_holds_neither_before_nor_after(signed, officers, words):
    with pytest.raises(PermitNotYet, match="has not begun"):
        verify(signed, officers, words.NOW - 0.1)
    for at in (words.NOW + 86400, words.NOW + 10**8):
        with pytest.raises(PermitExpired, match="has ended; apply for a new permit"):
            verify(signed, officers, at)


EDITS = [
    {"purpose": "education"},
    {"title": "Heart disease in four Hospitals"},
    {"features": ("age", "sex", "chol")},
    {"algorithms": ("statistics",)},
    {"least_patients": 9},
    {"counts_to": 1},
    {"organisation": "University of Basel"},
    {"organisation_kind": "university"},
    {"country": "CH"},
    {"ends": 1_800_086_401.0},
    {"starts": 1_799_999_999.0},
    {"privacy": None},
    {"questions": 21},
    {"attempts": 4},
    {"dropouts": 0},
    {"most_patients": 100_001},
    {"fraction_bits": 39},
    {"applicant": "person-2"},
    {"data_set": "lungs"},
    {"study": "study-2"},
    {"id": "permit-2"},
]


@pytest.mark.promise(3)
@pytest.mark.parametrize("edit", [pytest.param(edit, id=next(iter(edit))) for edit in EDITS])
def test_a_permit_edited_after_signing_is_found_out(signed, officers, words, edit):
    edited = change(signed, permit=change(signed.permit, **edit))
    check(edited.permit)  # the edit alone is a possible permit: only the signatures tell
    with pytest.raises(PermitInvalid, match="is not what the officer of site `site-a` signed"):
        verify(edited, officers, words.NOW)


@pytest.mark.promise(3)
def test_every_field_of_a_permit_is_under_the_signature(permit):
    assert {next(iter(edit)) for edit in EDITS} | {
        "code",
        "participants",
        "least_owners",
        "colluders",
        "mode",
        "attestation",
    } == {field.name for field in msgspec.structs.fields(Permit)}
    said = json.loads(message(permit, "site-a", "person-1", 1.0).removeprefix(DOMAIN))
    assert said["permit"] == json.loads(canonical.encode(msgspec.to_builtins(permit)))
    assert set(said["permit"]) == {field.name for field in msgspec.structs.fields(Permit)} | {"type"}


@pytest.mark.promise(3)
def test_a_permit_shown_for_another_study_is_refused(signed, officers, words):
    with pytest.raises(PermitInvalid, match="belongs to study `study-1`, not `study-9`"):
        verify(signed, officers, words.NOW, study="study-9")


@pytest.mark.promise(3)
def test_signatures_replayed_onto_another_study_are_refused(signed, officers, words):
    other = change(signed, permit=change(signed.permit, study="study-9"))
    with pytest.raises(PermitInvalid, match="is not what the officer"):
        verify(other, officers, words.NOW, study="study-9")


@pytest.mark.promise(3)
def test_a_missing_signature_is_named(signed, officers, words):
    for missing in range(4):
        rest = signed.signatures[:missing] + signed.signatures[missing + 1 :]
        with pytest.raises(PermitUnsigned, match=f"lacks the signature of `{words.SITES[missing]}`"):
            verify(change(signed, signatures=rest), officers, words.NOW)
    twice = change(signed, signatures=(*signed.signatures[:3], signed.signatures[0]))
    with pytest.raises(PermitUnsigned, match="lacks the signature of `site-d`"):
        verify(twice, officers, words.NOW)


@pytest.mark.promise(3)
def test_a_quorum_is_a_parameter_and_never_nothing(signed, officers, words):
    three = change(signed, signatures=signed.signatures[:3])
    verify(three, officers, words.NOW, quorum=3)
    with pytest.raises(PermitUnsigned):
        verify(three, officers, words.NOW, quorum=4)
    for quorum in (0, -1, 5):
        with pytest.raises(PermitInvalid, match="is no quorum"):
            verify(signed, officers, words.NOW, quorum=quorum)


@pytest.mark.promise(3)
def test_a_key_of_another_is_no_officers_key(permit, signed, officers, keys, words):
    stranger = change(signed, signatures=(words.sign(permit, keys, "site-a", key="site-x"), *signed.signatures[1:]))
    with pytest.raises(PermitUnsigned, match="with a key of none of its officers; let an enrolled officer"):
        verify(stranger, officers, words.NOW)
    colleague = change(signed, signatures=(words.sign(permit, keys, "site-a", key="site-b"), *signed.signatures[1:]))
    with pytest.raises(PermitUnsigned, match="site `site-a`"):
        verify(colleague, officers, words.NOW)


@pytest.mark.promise(3)
def test_a_signature_counts_for_its_site_its_officer_and_its_time_only(signed, officers, keys, words):
    """Also where one person speaks for two sites with one key."""
    both = officers | {"site-b": officers["site-a"] | officers["site-b"]}
    first = signed.signatures[0]
    for forged in (
        change(first, site="site-b"),
        change(first, officer="person-of-site-b"),
        change(first, at=first.at + 1),
    ):
        with pytest.raises(PermitInvalid, match="is not what the officer"):
            verify(change(signed, signatures=(forged, *signed.signatures[1:])), both, words.NOW)


@pytest.mark.promise(3)
def test_one_bad_signature_among_good_ones_spoils_it(signed, officers, words):
    last = signed.signatures[-1]
    for bytes_ in (b"", bytes(64), last.signature[:-1] + bytes([last.signature[-1] ^ 1])):
        with pytest.raises(PermitInvalid, match="site-d"):
            verify(
                change(signed, signatures=(*signed.signatures[:3], change(last, signature=bytes_))),
                officers,
                words.NOW,
                quorum=3,
            )
    outside = change(last, site="site-x")
    with pytest.raises(PermitInvalid, match="does not take part"):
        verify(change(signed, signatures=(*signed.signatures, outside)), officers, words.NOW)


def people(*owners):
    return tuple(Participant(site=f"site-{place}", owner=owner) for place, owner in enumerate(owners))


SAME_OWNER = people("one", "one", "two", "three")
PRIVACY = Privacy(epsilon=3.0, delta=1e-5, noise_multiplier=2.0, clipping_norm=1.0, questions=20)
IMPOSSIBLE = [
    ({"least_owners": 2}, "2 owners at least is too few"),
    ({"participants": people("a", "b")}, "2 participants cannot hide a sum"),
    ({"participants": people("a", "a", "b", "b")}, "2 owners, fewer than the 3"),
    ({"participants": (*people("a", "b", "c"), people("d")[0])}, "a site takes part twice"),
    ({"colluders": 1}, "3 owners and 1 colluders do not fit a threshold of 3 of 4"),
    ({"colluders": 2}, "a third or more"),
    ({"dropouts": 2}, "leave fewer than the threshold"),
    ({"participants": people("a", "b", "c"), "dropouts": 1}, "leave fewer than the threshold"),
    ({"least_patients": 0}, "below one patient"),
    ({"counts_to": 0}, "rounded"),
    ({"counts_to": 1001}, "rounded"),
    ({"least_patients": -5}, "negative"),
    ({"most_patients": 9}, "cap of patients is below its floor"),
    ({"fraction_bits": 60}, "overflow the ring"),
    ({"fraction_bits": 64}, "overflow the ring"),
    ({"most_patients": 2**40}, "overflow the ring"),
    ({"attempts": 0}, "allows no question"),
    ({"questions": 0}, "allows no question"),
    ({"purpose": "marketing"}, "not one of the allowed purposes"),
    ({"purpose": "curiosity\n"}, "not one of the allowed purposes"),
    ({"features": ()}, "names no feature"),
    ({"features": ("age", "age")}, "named twice"),
    ({"algorithms": ()}, "names no algorithm"),
    ({"algorithms": ("magic",)}, "algorithm `magic` is unknown"),
    ({"algorithms": ("flower",)}, "go together"),
    ({"code": "0" * 64}, "go together"),
    ({"algorithms": ("flower",), "code": "x"}, "not a hex SHA-256"),
    ({"title": ""}, "empty or too long"),
    ({"title": "x" * 2001}, "empty or too long"),
    ({"id": ""}, "an id is not whole"),
    ({"study": "a\nb"}, "an id is not whole"),
    ({"mode": "open"}, "mode `open` is unknown"),
    ({"attestation": "sure"}, "its attestation is unknown"),
    ({"starts": float("nan")}, "not a time"),
    ({"ends": float("inf")}, "not a time"),
    ({"ends": 1.0}, "ends before it starts"),
    ({"ends": 1_800_000_000.0 + 11 * 366 * 86400}, "longer than ten years"),
    ({"privacy": change(PRIVACY, epsilon=0.0)}, "epsilon protects nobody"),
    ({"privacy": change(PRIVACY, epsilon=float("nan"))}, "not finite"),
    ({"privacy": change(PRIVACY, epsilon=1000.0)}, "epsilon protects nobody"),
    ({"privacy": change(PRIVACY, delta=0.5)}, "delta protects nobody"),
    ({"privacy": change(PRIVACY, noise_multiplier=0.0)}, "adds no noise"),
    ({"privacy": change(PRIVACY, clipping_norm=-1.0)}, "clipping norm"),
    ({"privacy": change(PRIVACY, questions=21)}, "more questions than the permit"),
]


@pytest.mark.promise(3)
@pytest.mark.parametrize(("edit", "sentence"), [pytest.param(*row, id=row[1]) for row in IMPOSSIBLE])
def test_a_permit_that_contradicts_itself_is_neither_signed_nor_accepted(  # fixtures
    permit, signed, officers, keys, words, edit, sentence
):
    wrong = change(permit, **edit)
    with pytest.raises(PermitInvalid, match=sentence) as caught:
        check(wrong)
    assert caught.value.do
    with pytest.raises(PermitInvalid, match=sentence):
        sign(wrong, "site-a", "person-of-site-a", keys["site-a"], words.NOW)
    with pytest.raises(PermitInvalid):
        verify(change(signed, permit=wrong), officers, words.NOW)


def test_nobody_signs_for_a_site_that_does_not_take_part(permit, keys, words):
    with pytest.raises(PermitInvalid, match="does not take part"):
        sign(permit, "site-x", "person-1", keys["site-x"], words.NOW)


def test_two_owners_sites_may_be_four_when_three_owners_remain(permit):
    check(change(permit, participants=SAME_OWNER))


@pytest.mark.promise(1)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 12), m=st.integers(0, 12), c=st.integers(0, 6), d=st.integers(0, 6))
def test_whatever_passes_leaves_a_sum_of_three_owners_beside_the_colluders_after_every_tolerated_loss(
    permit, n, m, c, d
):
    wish = change(permit, participants=people(*map(str, range(n))), least_owners=m, colluders=c, dropouts=d)
    try:
        check(wish)
    except PermitInvalid:
        return
    least = max(threshold(n), m + c)
    assert m >= 3
    assert 3 * c < n
    assert n - d >= least  # the losses it tolerates do not end the attempt
    assert 2 * threshold(n) - n > n / 3 > c  # two complete sets share an honest site


def test_a_permit_travels_unchanged_and_takes_no_more_than_it_knows(signed, permit):
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(signed), type=SignedPermit)
    assert again == signed
    assert (
        digest(again.permit) == digest(permit) == digest(msgspec.json.decode(msgspec.json.encode(permit), type=Permit))
    )
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(permit) | {"bonus": 1}), type=Permit)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(permit) | {"least_patients": "10"}), type=Permit)
    assert isinstance(again.signatures[0], Signature)
