import pytest
from hypothesis import given, strategies as st

from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.federation import members
from paroma.trust.federation.members import MAY_BECOME, Member, StatementInvalid, StatusImpossible
from paroma.trust.federation.tables import METADATA
from paroma.trust.keys.signing import HeldKey, SignatureInvalid

SITE, OFFICER, OTHER = (HeldKey.fresh(SeededRandomness(i, "members")) for i in range(3))
NAME = "site-0000000000000001"
NOW = 1_800_000_000.0


@pytest.fixture
def do(store):
    METADATA.create_all(store.engine)
    store.write_now(lambda tx: members.add(tx, member()))
    return store.write_now


def member(**changed):
    given = {
        "site": NAME,
        "owner": "City",
        "title": "City Hospital",
        "key": SITE.public,
        "log_vkey": "v",
        "status": "admitted",
    }
    return Member(**{**given, "changed": NOW, **changed})


def statement(*, key=SITE, site=NAME, officer=OFFICER, person="person-1", at=NOW, ended=False):
    return members.enrolment(key, site=site, person=person, name="Ada", officer=officer.public, at=at, ended=ended)


def take(do, text):
    return do(lambda tx: members.take_enrolment(tx, text))


def test_adding_again_changes_nothing_and_another_key_is_refused(do):
    do(lambda tx: members.add(tx, member(title="Other")))
    assert do(lambda tx: members.member(tx, NAME)) == member()
    with pytest.raises(Refused):
        do(lambda tx: members.add(tx, member(key=OTHER.public)))
    with pytest.raises(BadInput):
        do(lambda tx: members.add(tx, member(site="site-2", owner="a\nb")))


@pytest.mark.promise(3)
@pytest.mark.parametrize("status", ["quarantined", "left"])
def test_who_is_out_gets_no_token_and_binds_nobody(do, status):
    take(do, statement())
    assert do(lambda tx: members.find_client(tx, NAME)) is not None
    assert do(members.officer_keys) == {NAME: {OFFICER.thumbprint: OFFICER.public}}
    assert do(lambda tx: members.set_status(tx, NAME, status, at=NOW))
    assert not do(lambda tx: members.set_status(tx, NAME, status, at=NOW))
    assert do(lambda tx: members.find_client(tx, NAME)) is None
    assert do(members.officer_keys) == {}


def test_a_status_follows_only_where_it_may(do):
    for now, following in MAY_BECOME.items():
        for wanted in MAY_BECOME:
            name = f"site-{now}-{wanted}"
            key = HeldKey.fresh(SeededRandomness(9, name)).public
            do(lambda tx, n=name, k=key, s=now: members.add(tx, member(site=n, key=k, status=s)))
            if wanted in following or wanted == now:
                do(lambda tx, n=name, w=wanted: members.set_status(tx, n, w, at=NOW))
            else:
                with pytest.raises(StatusImpossible):
                    do(lambda tx, n=name, w=wanted: members.set_status(tx, n, w, at=NOW))


def test_an_unknown_site_is_named(do):
    with pytest.raises(members.MemberUnknown):
        do(lambda tx: members.member(tx, "site-x"))
    assert do(lambda tx: members.find_client(tx, "site-x")) is None
    assert do(lambda tx: members.by_key(tx, "x")) is None


@pytest.mark.promise(3)
def test_an_officer_is_who_the_site_signed_for_until_it_signs_otherwise(do):
    first = take(do, statement())
    assert take(do, statement()) == first
    take(do, statement(at=NOW + 1, ended=True))
    assert do(members.officer_keys) == {NAME: {}}
    with pytest.raises(StatementInvalid):
        take(do, statement())  # the old statement again brings nobody back
    take(do, statement(at=NOW + 2))
    assert list(do(members.officer_keys)[NAME]) == [OFFICER.thumbprint]


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("text", "error"),
    [
        (statement(key=OTHER), SignatureInvalid),
        (statement(site="site-0000000000000002"), members.MemberUnknown),
        (statement(officer=SITE), StatementInvalid),
        (statement().replace(b"Ada", b"Eve"), SignatureInvalid),
        (b"{}", BadInput),
    ],
    ids=["by another key", "of a stranger", "the site's own key", "altered", "empty"],
)
def test_an_enrolment_that_the_site_did_not_sign_is_refused(do, text, error):
    with pytest.raises(error):
        take(do, text)
    assert do(members.officers) == ()


@pytest.mark.promise(3)
def test_two_statements_of_one_time_or_two_people_with_one_key_are_refused(do):
    take(do, statement())
    for other in (statement(ended=True), statement(person="person-2", at=NOW + 1)):
        with pytest.raises(StatementInvalid):
            take(do, other)


@pytest.mark.promise(3)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_statement_or_a_refusal(data):
    from paroma.trust.federation import statements

    with pytest.raises(ParomaError):
        statements.read(data, members.OfficerStatement)
