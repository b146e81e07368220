import asyncio
import contextlib
import datetime as dt
from types import MappingProxyType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, strategies as st

from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire.network import HttpResponse
from paroma.trust.federation import invitations, join, members, pinning
from paroma.trust.federation.invitations import InvitationEnded, InvitationSpent
from paroma.trust.federation.tables import INVITATIONS, METADATA
from paroma.trust.keys.signing import HeldKey, SignatureInvalid

HUB = "https://hub.example:8443"
HUB_KEY, SITE_KEY, OTHER_KEY = (HeldKey.fresh(SeededRandomness(i, "join")) for i in range(3))
LOG = "paroma/federation+00000000+AAAA"
NOW = 1_800_000_000.0
PRINT = "ab" * 32


@pytest.fixture
def do(store):
    METADATA.create_all(store.engine)
    return store.write_now


@pytest.fixture
def invitation(do):
    return mint(do)


def mint(do, **changed):
    given = {"url": HUB, "fingerprint": PRINT, "log_vkey": LOG, "now": NOW, "randomness": SeededRandomness(5, "mint")}
    return do(lambda tx: invitations.mint(tx, **{**given, **changed}))


def request(invitation, key=SITE_KEY, **changed):
    return join.request(
        invitation, key, **{"log_vkey": "site+1+A", "owner": "City", "title": "City Hospital", **changed}
    )


def accept(do, data, *, proven=SITE_KEY.thumbprint, now=NOW + 1, seed=1):
    return do(
        lambda tx: join.accept(
            tx, data, proven=proven, key=HUB_KEY, hub=HUB, log_vkey=LOG, now=now, randomness=SeededRandomness(seed, "a")
        )
    )


# -- the line


def test_an_invitation_is_one_line_that_reads_back(invitation):
    assert "\n" not in str(invitation)
    assert invitations.parse(f"  {invitation}\n") == invitation


@pytest.mark.promise(3)
@given(st.data())
def test_a_damaged_invitation_is_refused(data):
    line = str(invitations.Invitation(url=HUB, fingerprint=PRINT, log_vkey=LOG, code="c" * 22))
    at = data.draw(st.integers(0, len(line) - 1))
    cut = data.draw(st.sampled_from([line[:at], line[:at] + line[at + 1 :], line[:at] + "!" + line[at + 1 :]]))
    with contextlib.suppress(BadInput):
        assert invitations.parse(cut) != invitations.parse(line)  # another code, say: the hub will not know it


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://hub.example:8443"},
        {"url": "https://hub.example"},
        {"url": HUB + "/x"},
        {"fingerprint": "ab"},
        {"fingerprint": "zz" * 32},
        {"fingerprint": "AB" * 32},
        {"code": ""},
        {"log_vkey": ""},
    ],
    ids=str,
)
def test_an_invitation_that_lacks_something_is_refused(changed):
    given = {"url": HUB, "fingerprint": PRINT, "log_vkey": LOG, "code": "c", **changed}
    with pytest.raises(BadInput):
        invitations.parse(str(invitations.Invitation(**given)))


@pytest.mark.promise(3)
def test_the_code_is_kept_nowhere(do, store, invitation):
    assert invitation.code not in str(store.read_now(lambda tx: tx.execute(INVITATIONS.select()).all()))


# -- joining


def test_a_site_joins_and_both_know_each_other(do, invitation):
    data, member = accept(do, request(invitation))
    said = join.read_accepted(data, invitation, thumbprint=SITE_KEY.thumbprint)
    assert member is not None
    assert (said.site, said.hub, said.log_vkey) == (member.site, HUB, LOG)
    assert said.jwk == HUB_KEY.public_jwk
    kept = do(lambda tx: members.member(tx, said.site))
    assert (kept.owner, kept.title, kept.key, kept.status) == ("City", "City Hospital", SITE_KEY.public, "joining")


@pytest.mark.promise(5)
def test_repeating_by_the_same_key_is_safe_even_late(do, invitation):
    first, _ = accept(do, request(invitation))
    again, member = accept(do, request(invitation), now=NOW + 1e9, seed=2)
    assert again == first
    assert member is None
    assert len(do(members.members)) == 1


@pytest.mark.promise(3)
def test_a_second_site_with_the_same_invitation_is_refused_with_a_clear_sentence(do, invitation):
    accept(do, request(invitation))
    with pytest.raises(InvitationSpent) as caught:
        accept(do, request(invitation, OTHER_KEY), proven=OTHER_KEY.thumbprint, seed=2)
    assert "another site has joined with this invitation" in str(caught.value)
    assert "ask the hub's operator" in caught.value.do


@pytest.mark.promise(3)
@pytest.mark.parametrize("case", ["expired", "withdrawn", "unknown"])
def test_an_invitation_that_is_not_valid_is_refused(do, invitation, case):
    if case == "withdrawn":
        do(lambda tx: invitations.withdraw(tx, invitation, now=NOW))
    data = request(mint_other() if case == "unknown" else invitation)
    with pytest.raises(InvitationEnded):
        accept(do, data, now=NOW + (invitations.LIFE_SECONDS if case == "expired" else 1))


def mint_other():
    return invitations.Invitation(url=HUB, fingerprint=PRINT, log_vkey=LOG, code="unknown")


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "wrong",
    [
        "proof by another key",
        "another hub",
        "another owner",
        "signature of another",
        "altered",
        "not json",
        "huge",
        "known key",
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_leaves_the_invitation_whole(do, invitation, wrong):
    given, proven = invitation, SITE_KEY.thumbprint
    if wrong == "another owner":
        given = mint(do, owner="County", randomness=SeededRandomness(6, "mint"))
    data = request(given)
    if wrong == "proof by another key":
        proven = OTHER_KEY.thumbprint
    if wrong == "another hub":
        data = request(
            invitations.Invitation(url="https://other.example:1", fingerprint=PRINT, log_vkey=LOG, code=given.code)
        )
    if wrong == "signature of another":
        mine, theirs = data, request(given, OTHER_KEY)
        cut = mine.index(b'","statement"')
        data = theirs[: theirs.index(b'","statement"')] + mine[cut:]
        assert data != mine
    if wrong == "altered":
        data = data.replace(b"City Hospital", b"Town Hospital")
    if wrong == "not json":
        data = b"\xff"
    if wrong == "huge":
        data = b'"' + b"x" * 100_000 + b'"'
    if wrong == "known key":
        accept(do, request(mint(do, randomness=SeededRandomness(8, "mint"))), seed=3)
    before = do(members.members)
    with pytest.raises(ParomaError):
        accept(do, data, proven=proven)
    assert do(members.members) == before
    use = do(lambda tx: invitations.look(tx, invitation.code, thumbprint=SITE_KEY.thumbprint, now=NOW + 1))
    assert use.site is None


@pytest.mark.promise(3)
@pytest.mark.parametrize("changed", ["hub", "log_vkey", "thumbprint", "signature"])
def test_an_answer_that_does_not_fit_the_invitation_is_refused(do, invitation, changed):
    data, _ = accept(do, request(invitation))
    if changed == "signature":
        data = data.replace(b"site-", b"sitf-")
        with pytest.raises((SignatureInvalid, BadInput)):
            join.read_accepted(data, invitation, thumbprint=SITE_KEY.thumbprint)
        return
    other = {
        "hub": invitations.Invitation(url="https://o.example:1", fingerprint=PRINT, log_vkey=LOG, code="c"),
        "log_vkey": invitations.Invitation(url=HUB, fingerprint=PRINT, log_vkey="another", code="c"),
    }.get(changed, invitation)
    mine = OTHER_KEY.thumbprint if changed == "thumbprint" else SITE_KEY.thumbprint
    with pytest.raises(join.JoinRefused):
        join.read_accepted(data, other, thumbprint=mine)


# -- first contact


def authority(*, key=None, is_authority=True, signer=None):
    key = key or ec.derive_private_key(12345, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub authority")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2036, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .sign(signer or key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


class Answers:
    def __init__(self, body, status=200):
        self.body = body
        self.status = status
        self.sent = []

    async def send(self, request):
        self.sent.append(request)
        return HttpResponse(status=self.status, headers=MappingProxyType({}), body=self.body)


@pytest.mark.promise(3)
def test_the_hubs_authority_is_believed_by_its_fingerprint_and_nothing_was_said_before():
    pem = authority()
    network = Answers(pem)
    assert asyncio.run(pinning.fetch_ca(network, HUB, pinning.fingerprint(pem))) == pem
    (sent,) = network.sent
    assert (sent.method, sent.url, sent.headers, sent.body) == ("GET", HUB + pinning.PATH, (), b"")


def test_a_renewed_certificate_with_the_same_key_still_fits():
    key = ec.generate_private_key(ec.SECP256R1())
    assert pinning.fingerprint(authority(key=key)) == pinning.fingerprint(authority(key=key))


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "answer", ["another key", "no certificate", "not found", "no authority", "huge", "forged text"]
)
def test_whoever_else_answers_is_refused(answer):
    good = authority()
    stranger = ec.derive_private_key(999, ec.SECP256R1())
    network = {
        "another key": Answers(authority(key=stranger)),
        "no certificate": Answers(b"<html>login to the hospital's proxy</html>"),
        "not found": Answers(good, 404),
        "no authority": Answers(authority(is_authority=False)),
        "huge": Answers(good + b"\n" * 100_000),
        "forged text": Answers(authority(signer=stranger)),
    }[answer]
    with pytest.raises(pinning.AuthorityWrong) as caught:
        asyncio.run(pinning.fetch_ca(network, HUB, pinning.fingerprint(good)))
    assert isinstance(caught.value, Refused)
