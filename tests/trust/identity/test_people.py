import pytest

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import SeededRandomness
from paroma.trust.identity import epoch, people
from paroma.trust.identity.tables import LINKS, METADATA, SESSIONS
from paroma.trust.keys.signing import HeldKey

KEYS = [HeldKey.fresh(SeededRandomness(i, "people")) for i in range(3)]
NOW = 1_800_000_000.0


@pytest.fixture
def people_store(store):
    METADATA.create_all(store.engine)
    return store


@pytest.fixture
def do(people_store):
    return people_store.write_now


@pytest.fixture
def randomness():
    return SeededRandomness(7, "people-test")


def invite(do, randomness, **changed):
    given = {"name": "Ada", "role": "scientist", "site": None, "now": NOW, "randomness": randomness, **changed}
    return do(lambda tx: people.invite(tx, **given))


def enrol(do, randomness, code, key=KEYS[0], now=NOW + 1):
    return do(lambda tx: people.enrol(tx, code, key.public_jwk, now=now, randomness=randomness))


def test_a_link_enrols_one_key_in_the_role_that_was_meant(do, randomness):
    code = invite(do, randomness, role="officer", site="site-0000000000000000")
    person = enrol(do, randomness, code)
    assert (person.name, person.role, person.site, person.key) == (
        "Ada",
        "officer",
        "site-0000000000000000",
        KEYS[0].public,
    )
    client = do(lambda tx: people.find_client(tx, person.person))
    assert client is not None
    assert client.role == "officer"


def test_repeating_with_the_same_key_gives_the_same_person(do, randomness):
    code = invite(do, randomness)
    first = enrol(do, randomness, code)
    assert enrol(do, randomness, code, now=NOW + 1e9) == first
    assert len(do(people.people)) == 1


@pytest.mark.promise(3)
@pytest.mark.parametrize("case", ["another key", "too late", "never made", "a browser link", "very long"])
def test_a_link_is_good_once_and_for_its_time(do, randomness, case):
    code = invite(do, randomness)
    if case == "another key":
        enrol(do, randomness, code)
    if case == "never made":
        code = "x"
    if case == "very long":
        code = "x" * 100_000
    if case == "a browser link":
        code = do(
            lambda tx: people.browser_link(
                tx, "patient-1", name="P", role="patient", site=None, now=NOW, randomness=randomness
            )
        )
    late = people.ENROL_LINK_SECONDS if case == "too late" else 1
    with pytest.raises(people.LinkSpent):
        enrol(do, randomness, code, KEYS[1], now=NOW + late)


def test_a_key_belongs_to_one_person(do, randomness):
    enrol(do, randomness, invite(do, randomness))
    with pytest.raises(people.KeyTaken):
        enrol(do, randomness, invite(do, randomness, name="Bob"))


@pytest.mark.promise(3)
def test_who_is_revoked_has_no_token_no_session_and_no_link(do, randomness):
    person = enrol(do, randomness, invite(do, randomness))
    link = {"name": "Ada", "role": "scientist", "site": None, "now": NOW, "randomness": randomness}
    first, second = (do(lambda tx: people.browser_link(tx, person.person, **link)) for _ in range(2))
    opened = do(lambda tx: people.open_session(tx, first, browser="b", cookie=None, now=NOW, randomness=randomness))
    before = do(epoch.current)
    assert do(lambda tx: people.revoke_person(tx, person.person, now=NOW + 2)) == before + 1
    assert do(lambda tx: people.revoke_person(tx, person.person, now=NOW + 3)) == before + 1
    assert do(lambda tx: people.find_client(tx, person.person)) is None
    with pytest.raises(people.SessionEnded):
        do(lambda tx: people.session(tx, opened.cookie, now=NOW + 3))
    with pytest.raises(people.LinkSpent):
        do(lambda tx: people.open_session(tx, second, browser="b", cookie=None, now=NOW, randomness=randomness))


def test_a_name_must_be_printable(do, randomness):
    for name in ("", "a\x00b", "x" * 200):
        with pytest.raises(BadInput):
            invite(do, randomness, name=name)


# -- browsers


@pytest.fixture
def link(do, randomness):
    return do(
        lambda tx: people.browser_link(
            tx, "patient-1", name="P", role="patient", site=None, now=NOW, randomness=randomness
        )
    )


@pytest.fixture
def opening(do, randomness):
    def opening(code, *, cookie=None, now=NOW + 5, browser="Firefox"):
        return do(
            lambda tx: people.open_session(tx, code, browser=browser, cookie=cookie, now=now, randomness=randomness)
        )

    return opening


@pytest.mark.promise(3)
def test_the_first_browser_gets_the_session_and_the_link_is_spent(do, link, opening):
    opened = opening(link)
    session = do(lambda tx: people.session(tx, opened.cookie, now=NOW + 6))
    assert (session.subject, session.role, session.browser) == ("patient-1", "patient", "Firefox")
    for cookie in (None, "x", opened.cookie + "x"):
        with pytest.raises(people.LinkSpent):
            opening(link, cookie=cookie)
    assert opening(link, cookie=opened.cookie) == opened  # the same browser, loading the page again


@pytest.mark.promise(3)
def test_another_session_of_the_same_patient_does_not_open_a_spent_link(do, link, opening, randomness):
    other = do(
        lambda tx: people.browser_link(
            tx, "patient-1", name="P", role="patient", site=None, now=NOW, randomness=randomness
        )
    )
    opening(link)
    with pytest.raises(people.LinkSpent):
        opening(link, cookie=opening(other).cookie)


@pytest.mark.promise(3)
@pytest.mark.parametrize("opened_after", [0, 899])
def test_a_session_lives_for_a_quarter_of_an_hour(do, link, opening, opened_after):
    opened = opening(link, now=NOW + opened_after)
    do(lambda tx: people.session(tx, opened.cookie, now=NOW + opened_after + 899))
    with pytest.raises(people.SessionEnded):
        do(lambda tx: people.session(tx, opened.cookie, now=NOW + opened_after + 900))


@pytest.mark.promise(3)
def test_a_link_that_is_a_quarter_of_an_hour_old_opens_nothing(link, opening):
    with pytest.raises(people.LinkSpent):
        opening(link, now=NOW + 900)


@pytest.mark.promise(3)
def test_sessions_are_listed_and_revoked_by_their_owner_only(do, link, opening):
    opened = opening(link)
    listed = do(lambda tx: people.sessions(tx, "patient-1", now=NOW + 6))
    assert [s.session for s in listed] == [opened.session.session]
    do(lambda tx: people.revoke_session(tx, "patient-2", opened.session.session))
    do(lambda tx: people.session(tx, opened.cookie, now=NOW + 6))
    do(lambda tx: people.revoke_session(tx, "patient-1", opened.session.session))
    with pytest.raises(people.SessionEnded):
        do(lambda tx: people.session(tx, opened.cookie, now=NOW + 6))
    assert do(lambda tx: people.sessions(tx, "patient-1", now=NOW + 6)) == ()


@pytest.mark.promise(3)
def test_neither_code_nor_cookie_is_kept(do, people_store, link, opening):
    opened = opening(link)
    for table in (LINKS, SESSIONS):
        kept = str(people_store.read_now(lambda tx, table=table: tx.execute(table.select()).all()))
        assert link not in kept
        assert opened.cookie not in kept


def test_what_ended_is_forgotten(do, link, opening):
    opened = opening(link)
    do(lambda tx: people.forget(tx, before=NOW + 1e6))
    assert do(lambda tx: people.sessions(tx, "patient-1", now=NOW)) == ()
    with pytest.raises(people.SessionEnded):
        do(lambda tx: people.session(tx, opened.cookie, now=NOW))


@pytest.mark.promise(3)
def test_a_form_of_another_session_is_refused():
    people.check_form("cookie", people.form_token("cookie"))
    for token in ("", people.form_token("other"), "\ud800"):
        with pytest.raises(Refused):
            people.check_form("cookie", token)
