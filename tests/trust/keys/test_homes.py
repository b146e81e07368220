"""The same behaviour of a key wherever it lives: file, TPM, PKCS#11 token, key service."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from paroma.kernel.errors import ParomaError
from paroma.trust.keys.errors import KeyAway, KeyGone, KeyPinWrong, KeyThere, KeyUnfit, NotWrappedByThis
from paroma.trust.keys.named import PROMISES
from paroma.trust.keys.signing import SignatureInvalid

ROOT = bytes(range(32))


def test_a_key_signs_and_its_public_half_verifies_also_after_it_was_opened_again(place):
    uri = place.uri("site", "sign")
    made = place.homes.make_signing(uri)
    signatures = [made.sign(b"a message"), made.sign(b"x")]
    made.close()
    found = place.homes.signing(uri)
    assert found.public == made.public
    assert found.thumbprint == made.public.thumbprint
    assert found.public_jwk == made.public.jwk
    for message, signature in zip((b"a message", b"x"), signatures, strict=True):
        assert len(signature) == 64
        found.public.verify(message, signature)
    with pytest.raises(SignatureInvalid):
        found.public.verify(b"another message", found.sign(b"a message"))
    found.close()


def test_a_long_message_is_signed_too_and_a_service_that_signs_other_bytes_is_found_out(place):
    key, message = place.homes.make_signing(place.uri("x", "sign")), bytes(5000)
    if place.kind == "awskms":  # moto 5.2 hashes a digest that it is given once more
        with pytest.raises(KeyAway):
            key.sign(message)
    else:
        key.public.verify(message, key.sign(message))
    key.close()


def test_what_a_key_wrapped_it_unwraps_for_the_same_purpose_only(place):
    uri = place.uri("root", "wrap")
    made = place.homes.make_wrapping(uri)
    one, other = made.wrap(ROOT, b"root 1"), made.wrap(ROOT, b"root 1")
    made.close()
    assert one != other
    assert ROOT not in one
    found = place.homes.wrapping(uri)
    assert found.unwrap(one, b"root 1") == found.unwrap(other, b"root 1") == ROOT
    changed = one[:-1] + bytes([one[-1] ^ 1])
    for wrong, purpose in ((one, b"root 2"), (changed, b"root 1"), (b"", b"root 1"), (one[:20], b"root 1")):
        with pytest.raises(NotWrappedByThis):
            found.unwrap(wrong, purpose)
    found.close()


def test_another_key_does_not_unwrap(place):
    one, other = (place.homes.make_wrapping(place.uri(name, "wrap")) for name in ("one", "other"))
    with pytest.raises(NotWrappedByThis):
        other.unwrap(one.wrap(ROOT, b"root"), b"root")
    one.close()
    other.close()


def test_a_secret_that_not_every_home_takes_is_refused_by_all(place):
    key = place.homes.make_wrapping(place.uri("root", "wrap"))
    most = bytes(1024)
    assert key.unwrap(key.wrap(most, b"root"), b"root") == most
    for secret in (b"", bytes(1025)):
        with pytest.raises(KeyUnfit):
            key.wrap(secret, b"root")
    key.close()


@pytest.mark.parametrize("use", ["sign", "wrap"])
def test_a_destroyed_key_is_gone_and_the_sentence_says_so(place, use):
    uri = place.uri("x", use)
    make, find = (
        (place.homes.make_signing, place.homes.signing)
        if use == "sign"
        else (place.homes.make_wrapping, place.homes.wrapping)
    )
    with pytest.raises(KeyGone):
        find(uri)
    key = make(uri)
    key.destroy()
    key.close()
    with pytest.raises(KeyGone) as caught:
        find(uri)
    assert caught.value.do


def test_a_key_that_is_there_is_never_made_over(place):
    uri = place.uri("x", "sign")
    first = place.homes.make_signing(uri)
    with pytest.raises(KeyThere):
        place.homes.make_signing(uri)
    found = place.homes.signing_or_new(uri)
    assert found.public == first.public
    first.close()
    found.close()


def test_a_key_for_wrapping_does_not_sign(place):
    uri = place.uri("x", "wrap")
    place.homes.make_wrapping(uri).close()
    with pytest.raises(ParomaError) as caught:
        place.homes.signing(uri)
    assert caught.value.do


def test_a_home_that_went_away_is_named_and_when_it_is_back_the_key_is_there(place):
    uri = place.uri("x", "sign")
    place.homes.make_signing(uri).close()
    place.away()
    with pytest.raises((KeyAway, KeyGone)) as caught:  # a file that is away is a file that is not there
        place.homes.signing(uri)
    assert caught.value.do
    if place.kind == "awskms":
        return  # moto forgets its keys when it stops
    place.back()
    found = place.homes.signing(uri)
    found.public.verify(b"x", found.sign(b"x"))
    found.close()


def test_a_handle_outlives_that_its_home_goes_away_and_comes_back(place):
    key = place.homes.make_signing(place.uri("x", "sign"))
    place.away()
    if place.kind in {"tpm", "awskms"}:
        with pytest.raises(KeyAway):
            key.sign(b"x")
    if place.kind == "awskms":
        return  # moto forgets its keys when it stops
    place.back()
    key.public.verify(b"y", key.sign(b"y"))
    key.close()


def test_threads_may_share_a_key_and_two_keys_of_one_home_do_not_disturb_each_other(place):
    one, other = (place.homes.make_signing(place.uri(name, "sign")) for name in ("one", "other"))
    wrong = []

    def work(key, name):
        for n in range(4):
            message = f"{name} {n}".encode()
            try:
                key.public.verify(message, key.sign(message))
            except ParomaError as problem:
                wrong.append(problem)

    threads = [threading.Thread(target=work, args=(key, name)) for name in "ab" for key in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    one.close()
    other.public.verify(b"x", other.sign(b"x"))  # closing one of them did not log the other out for good
    other.close()


@pytest.mark.parametrize("pin", ["0000", ""])
@pytest.mark.apt("softhsm2")
def test_a_token_that_refuses_the_pin_says_what_to_correct(pkcs11_place, pin):
    uri = pkcs11_place.uri("x", "sign")
    pkcs11_place.homes.make_signing(uri).close()
    pkcs11_place.environ["TOKEN_PIN"] = pin
    with pytest.raises(KeyPinWrong) as caught:
        pkcs11_place.homes.signing(uri)
    assert "pin" in str(caught.value).lower()


@pytest.mark.apt("swtpm")
@pytest.mark.apt("tpm2-tools")
def test_a_tpm_that_refuses_the_pin_says_what_to_correct(tpm_place, tmp_path):
    sign, wrap = tpm_place.uri("x", "sign"), tpm_place.uri("y", "wrap")
    tpm_place.homes.make_signing(sign)
    wrapped = tpm_place.homes.make_wrapping(wrap).wrap(ROOT, b"root")
    (tmp_path / "pin").write_text("0000")
    with pytest.raises(KeyPinWrong):
        tpm_place.homes.signing(sign).sign(b"x")
    with pytest.raises(KeyPinWrong):
        tpm_place.homes.wrapping(wrap).unwrap(wrapped, b"root")


@pytest.mark.apt("swtpm")
@pytest.mark.apt("tpm2-tools")
def test_whoever_repeats_with_a_wrong_pin_does_not_lock_the_tpm_and_a_corrected_one_is_taken_up(tpm_place, tmp_path):
    key = tpm_place.homes.make_signing(tpm_place.uri("x", "sign"))
    (tmp_path / "pin").write_text("0000")
    for _ in range(4):
        with pytest.raises(KeyPinWrong):
            key.sign(b"x")
    told = subprocess.run(
        ["tpm2_getcap", "properties-variable"],
        env={**os.environ, "TPM2TOOLS_TCTI": f"swtpm:path={tmp_path / 's'}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "TPM2_PT_LOCKOUT_COUNTER: 0x1\n" in told.stdout
    (tmp_path / "pin").write_text("4711")
    key.public.verify(b"x", key.sign(b"x"))


@pytest.mark.apt("swtpm")
@pytest.mark.apt("tpm2-tools")
def test_what_a_tpm_key_was_made_of_is_left_nowhere(tpm_place):
    before = set(Path("/dev/shm").glob("paroma-tpm-*"))
    tpm_place.homes.make_signing(tpm_place.uri("x", "sign")).sign(b"x")
    assert set(Path("/dev/shm").glob("paroma-tpm-*")) <= before


@pytest.mark.apt("softhsm2")
def test_a_key_in_a_token_is_sensitive_and_cannot_be_taken_out(pkcs11_place):
    import pkcs11

    sign = pkcs11_place.homes.make_signing(pkcs11_place.uri("x", "sign"))
    wrap = pkcs11_place.homes.make_wrapping(pkcs11_place.uri("y", "wrap"))
    for held in (sign._held, wrap._held):
        assert held._key[pkcs11.Attribute.SENSITIVE] is True
        assert held._key[pkcs11.Attribute.EXTRACTABLE] is False
    with pytest.raises(pkcs11.AttributeSensitive):
        _ = wrap._held._key[pkcs11.Attribute.VALUE]
    sign.close()
    wrap.close()


def test_every_home_has_its_promises(place):
    assert place.kind in PROMISES
