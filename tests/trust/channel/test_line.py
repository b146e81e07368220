import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from paroma.kernel.errors import Refused
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire import framing
from paroma.trust.channel import mailbox, outbox
from paroma.trust.channel.authenticate import Unauthenticated, authenticate
from paroma.trust.channel.exchange import NotAdmitted
from paroma.trust.channel.line import LineBroken
from paroma.trust.channel.mailbox import Letter
from paroma.trust.channel.messages import MOST_MESSAGE, Envelope, Exchange, Exchanged, MessageTooLong, Taken
from paroma.trust.identity import dpop
from paroma.trust.keys.signing import HeldKey

FATES = ["arrives", "request lost", "reply lost", "replayed", "late", "reply late", "hub restarts"]
HANDLERS = ["works", "fails before", "fails after"]
STEPS = st.lists(
    st.sampled_from(["site sends", "hub posts", "site is killed", "pause", "site sends twice", "hub posts twice"]),
    min_size=3,
    max_size=14,
)


@pytest.mark.promise(5)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=16),
    handlers=st.lists(st.sampled_from(HANDLERS), max_size=6),
    steps=STEPS,
)
def test_whatever_is_lost_cut_killed_or_repeated_every_message_has_its_effect_once_and_in_order(
    pair, fates, handlers, steps
):
    there = pair()
    there.wire.fates, there.site.handler_fates = list(fates), list(handlers)
    up, down = [], []

    async def scene():
        there.site.start()
        for number, step in enumerate(steps):
            body = b"%d" % number
            if step.startswith("site sends"):
                up.append(body)
                for _ in range(1 + step.endswith("twice")):
                    await there.site.send(f"up-{number}", body)
            elif step.startswith("hub posts"):
                down.append(body)
                for _ in range(1 + step.endswith("twice")):
                    await there.hub.post(there.SITE, f"down-{number}", body)
            elif step == "site is killed":
                await there.site.kill()
                there.site.start()
            else:
                await asyncio.sleep(0.01)
        await there.until(lambda: there.hub.effects() == up and there.site.effects() == down)
        await asyncio.sleep(0.02)
        await there.site.stop()

    asyncio.run(scene())
    assert there.hub.effects() == up
    assert there.site.effects() == down
    assert set(there.wire.replayed) <= {401}
    assert there.site.refused_here == []
    assert there.site.refused_there == []


@pytest.mark.promise(5)
@pytest.mark.parametrize("fate", ["request lost", "reply lost"])
def test_the_last_message_arrives_too_when_the_request_that_carries_it_is_lost(pair, fate):
    there = pair(park=0.3)

    async def scene():
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        there.wire.fates = [fate]
        await there.site.send("m", b"x")
        await there.until(lambda: there.site.failures)
        await there.until(lambda: there.hub.effects() == [b"x"])
        await there.site.stop()

    asyncio.run(scene())


@pytest.mark.promise(5)
def test_a_message_that_overtakes_the_one_before_it_waits_for_it(pair):
    there = pair(park=20.0)

    async def scene():
        await there.site.store.write(lambda tx: outbox.send(tx, "first", b"1", now=0.0))
        there.wire.fates = ["held"]
        there.site.start()
        await there.until(lambda: there.wire.held)
        await there.site.send("second", b"2")
        await there.until(lambda: len(there.hub.parked) == 1)  # the second request is there, the first is not
        assert there.hub.effects() == []
        there.wire.go_on.set()
        await there.until(lambda: there.hub.effects() == [b"1", b"2"])
        await there.site.stop()

    asyncio.run(scene())


@pytest.mark.promise(5)
def test_what_a_killed_site_had_in_memory_only_comes_again(pair):
    there = pair(park=20.0)

    async def scene():
        works, hanging = there.site.handle, asyncio.Event()
        there.site.handle = lambda arrival: works(arrival) if arrival.seq <= 3 else hanging.wait()
        for number in range(20):
            await there.hub.post(there.SITE, f"d{number}", b"%d" % number)
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        await there.site.send("u", b"x")  # what was handled is acknowledged with it
        await there.until(lambda: there.hub.effects() == [b"x"])
        so_far = len(there.hub.requests)
        await asyncio.sleep(0.2)
        assert len(there.hub.requests) <= so_far + 1  # what lies in memory is not asked for again
        await there.site.kill()
        there.site.handle = works
        there.site.start()
        await there.until(lambda: len(there.site.effects()) == 20)
        await there.site.stop()

    asyncio.run(scene())
    assert there.site.effects() == [b"%d" % number for number in range(20)]


@pytest.mark.promise(3)
def test_a_second_message_under_a_used_number_is_refused(pair):
    hub = pair().hub
    first, second = (Envelope(seq=1, id=name, body=b"x") for name in ("a", "b"))
    receive = lambda message: hub.store.write_now(lambda tx: mailbox.receive(tx, "site-1", message, now=0.0))  # noqa: E731
    assert receive(first) is mailbox.Receipt.NEW
    assert receive(first) is mailbox.Receipt.SEEN
    with pytest.raises(mailbox.SequenceReused):
        receive(second)


def test_a_second_line_or_an_eager_handler_cannot_skip_a_message(pair):
    there = pair()
    with pytest.raises(outbox.OutOfOrder):
        there.site.store.write_now(lambda tx: outbox.admit(tx, 2))
    assert there.site.store.write_now(lambda tx: outbox.admit(tx, 1))
    assert not there.site.store.write_now(lambda tx: outbox.admit(tx, 1))


@pytest.mark.promise(3)
def test_a_replayed_request_is_refused_at_once_and_after_a_restart(pair):
    there = pair()

    async def scene():
        there.site.start()
        await there.site.send("m", b"x")
        await there.until(lambda: there.hub.effects() == [b"x"])
        await there.site.stop()
        recorded = list(there.hub.requests)
        for restart in (False, True):
            if restart:
                there.hub.boot()
            assert {(await there.hub.send(request)).status for request in recorded} <= {400, 401}

    asyncio.run(scene())
    assert there.hub.effects() == [b"x"]


@pytest.mark.promise(3)
def test_a_revoked_site_is_cut_at_once_and_stays_out(pair):
    there = pair(park=20.0)
    took = []

    async def scene():
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        started = time.perf_counter()
        there.hub.revoke(there.SITE)
        await there.until(lambda: there.site.failures)
        took.append(time.perf_counter() - started)
        await there.hub.post(there.SITE, "secret", b"after the revocation")
        await asyncio.sleep(0.1)
        await there.site.stop()

    asyncio.run(scene())
    assert took[0] < 1.0
    assert there.site.effects() == []


@pytest.mark.promise(3)
def test_nothing_is_said_to_a_site_that_is_revoked_while_its_answer_is_made(pair):
    there = pair()

    class Revoking(type(there.hub.end._heads)):
        def ours(self, tx, site):
            there.hub.parked.revoke(site)
            return super().ours(tx, site)

    async def scene():
        there.hub.end._heads = Revoking()
        await there.hub.post(there.SITE, "m", b"x")
        there.site.start()
        await there.until(lambda: there.site.failures)
        await there.site.stop()

    asyncio.run(scene())
    assert there.site.effects() == []


@pytest.mark.promise(5)
@pytest.mark.parametrize("hang", ["parked", "handling"])
def test_it_stops_within_a_second(pair, hang):
    there = pair(park=20.0)

    async def scene():
        if hang == "handling":
            there.site.handle = lambda _: asyncio.sleep(30)
            await there.hub.post(there.SITE, "m", b"x")
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        started = time.perf_counter()
        await there.site.stop()
        return time.perf_counter() - started

    assert asyncio.run(scene()) < 1.0


def test_a_stopping_hub_answers_its_parked_requests_first(pair):
    there = pair(park=20.0)

    async def scene():
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        there.hub.parked.stop()
        there.hub.boot()
        await there.hub.post(there.SITE, "m", b"x")
        await there.until(lambda: there.site.effects() == [b"x"])
        await there.site.stop()

    asyncio.run(scene())
    assert not there.site.failures


def test_a_parked_request_is_woken_by_either_side(pair):
    there = pair(park=20.0)

    async def scene():
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        started = time.perf_counter()
        await there.site.send("up", b"1")
        await there.until(lambda: there.hub.effects() == [b"1"])
        await there.hub.post(there.SITE, "down", b"2")
        await there.until(lambda: there.site.effects() == [b"2"])
        took = time.perf_counter() - started
        await there.site.stop()
        return took

    assert asyncio.run(scene()) < 2.0


def test_a_message_that_is_refused_does_not_stop_the_next(pair):
    there = pair()
    there.hub.refuse = lambda body: body == b"bad"
    there.site.handler_fates = ["refuses"]

    async def scene():
        await there.hub.post(there.SITE, "d1", b"bad")
        await there.hub.post(there.SITE, "d2", b"good")
        there.site.start()
        await there.site.send("u1", b"bad")
        await there.site.send("u2", b"good")
        await there.until(lambda: there.hub.effects() == [b"good"] and there.site.effects() == [b"good"])
        await there.until(lambda: there.site.refused_there)
        await there.site.stop()

    asyncio.run(scene())
    assert there.site.refused_here == ["d1"]
    assert [(r.id, r.do) for r in there.site.refused_there] == [("u1", "ask")]


@pytest.mark.promise(4)
def test_a_site_stops_before_any_message_when_the_heads_contradict(pair):
    class Contradicted:
        def ours(self, tx):
            return ("head",)

        async def theirs(self, heads):
            raise Refused("the log was rewritten", do="look at it")

    there = pair(heads=Contradicted())

    async def scene():
        await there.hub.post(there.SITE, "m", b"x")
        there.site.start()
        with pytest.raises(LineBroken):
            await asyncio.wait_for(there.site.task, 10)

    asyncio.run(scene())
    assert there.site.effects() == []


@pytest.mark.promise(3)
def test_a_site_whose_database_is_an_older_copy_stops(pair, new_store):
    there = pair()

    async def scene():
        there.site.start()
        await there.site.send("m1", b"1")
        await there.until(lambda: there.hub.effects() == [b"1"])
        await there.site.kill()
        older = pair().site  # an empty database with the same key
        older.wire, older.key = there.wire, there.site.key
        older.start()
        with pytest.raises(LineBroken):
            await asyncio.wait_for(older.task, 10)

    asyncio.run(scene())


@pytest.mark.promise(3)
def test_a_hub_whose_database_is_an_older_copy_is_noticed(pair):
    there, older = pair(), pair()

    async def scene():
        there.site.start()
        await there.site.send("m1", b"1")
        await there.until(lambda: there.site.position().acknowledged == 1)
        await there.site.kill()
        older.hub.enrol(there.SITE, there.site.key)
        there.wire.hub = older.hub
        there.site.start()
        with pytest.raises(LineBroken):
            await asyncio.wait_for(there.site.task, 10)

    asyncio.run(scene())


def test_what_was_acknowledged_is_kept_nowhere(pair):
    there = pair()

    async def scene():
        there.site.start()
        for number in range(40):
            await there.site.send(f"u{number}", b"secret")
            await there.hub.post(there.SITE, f"d{number}", b"secret")
        await there.until(lambda: there.site.position().acknowledged == 40)
        await there.until(
            lambda: there.hub.store.read_now(lambda tx: mailbox.position(tx, there.SITE)).acknowledged >= 24
        )
        await there.site.stop()

    asyncio.run(scene())
    assert there.site.store.read_now(lambda tx: outbox.waiting(tx, after=0)) == ((), False)


def test_a_message_that_is_too_long_is_refused_where_it_is_sent(pair):
    there = pair()
    for send in (
        lambda: there.site.store.write_now(lambda tx: outbox.send(tx, "m", bytes(MOST_MESSAGE + 1), now=0.0)),
        lambda: there.hub.store.write_now(
            lambda tx: mailbox.post(tx, there.SITE, "m", bytes(MOST_MESSAGE + 1), now=0.0)
        ),
    ):
        with pytest.raises(MessageTooLong):
            send()


@pytest.mark.promise(5)
def test_hundreds_of_messages_each_way_arrive_in_order(pair, capsys):
    there = pair(park=5.0)
    numbers = [b"%d" % number for number in range(300)]  # more than one request carries, each way

    async def scene():
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        started = time.perf_counter()

        def fill(tx, put):
            for body in numbers:
                put(tx, body)

        await there.site.store.write(
            lambda tx: fill(tx, lambda tx, body: outbox.send(tx, body.decode(), body, now=0.0))
        )
        await there.hub.store.write(
            lambda tx: fill(tx, lambda tx, body: mailbox.post(tx, there.SITE, body.decode(), body, now=0.0))
        )
        there.site.line.wake()
        there.hub.parked.wake(there.SITE)
        await there.until(lambda: len(there.hub.effects()) == len(there.site.effects()) == len(numbers), seconds=90)
        took = time.perf_counter() - started
        await there.site.stop()
        return took

    took = asyncio.run(scene())
    assert there.hub.effects() == numbers
    assert there.site.effects() == numbers
    with capsys.disabled():
        print(f"\n{2 * len(numbers)} messages in {took:.2f} s, {len(there.hub.requests)} requests")


class Counting:
    """A store that counts how often it was asked. Everything else is the store's own."""

    def __init__(self, store):
        self._store = store
        self.reads = self.writes = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def read(self, work):
        self.reads += 1
        return await self._store.read(work)

    async def write(self, work):
        self.writes += 1
        return await self._store.write(work)


def asked(*bodies, seq=1, received=0, wait=0.0):
    outgoing = tuple(Envelope(seq=seq + n, id=f"m{seq + n}", body=body) for n, body in enumerate(bodies))
    return framing.pack(Exchange(received=received, after=received, wait=wait, outgoing=outgoing, heads=("head",)))


def test_a_request_takes_one_transaction_and_a_parked_one_that_is_woken_one_more_that_only_reads(pair):
    hub = pair().hub
    counted = hub.end._store = Counting(hub.store)

    async def scene():
        told = framing.unpack(await hub.end.exchange("site-1", asked(b"a", b"b")), Exchanged, 1 << 20)
        assert (told.received, counted.reads, counted.writes) == (2, 0, 1)
        parked = asyncio.ensure_future(hub.end.exchange("site-1", asked(wait=20.0)))
        await asyncio.sleep(0.05)
        assert (counted.reads, counted.writes) == (1, 1)
        await hub.post("site-1", "d1", b"x")
        told = framing.unpack(await parked, Exchanged, 1 << 20)
        assert ([m.body for m in told.incoming], counted.reads, counted.writes) == ([b"x"], 2, 1)

    asyncio.run(scene())
    assert hub.effects() == [b"a", b"b"]


@pytest.mark.promise(3)
def test_nothing_of_a_request_is_looked_at_from_a_site_that_is_not_let_in(pair):
    hub = pair().hub
    hub.end._admits = lambda _tx, site: site != "site-1"

    async def scene():
        for body in (asked(b"a"), asked()):
            with pytest.raises(NotAdmitted):
                await hub.end.exchange("site-1", body)

    asyncio.run(scene())
    assert hub.effects() == []
    assert hub.store.read_now(lambda tx: mailbox.position(tx, "site-1")).received == 0


@pytest.mark.promise(4)
def test_when_a_sites_log_is_inconsistent_the_mark_stays_and_its_messages_are_not_heard(pair):
    hub = pair().hub

    class Broken(type(hub.end._heads)):
        def changed(self, site, heads):
            return True

        def theirs(self, tx, site, heads):
            mailbox.post(tx, site, "mark", b"stands for the mark", now=0.0)
            return Taken(trouble=Refused("the log was rewritten", do="look at it"))

    hub.end._heads = Broken()

    async def scene():
        with pytest.raises(Refused, match="rewritten"):
            await hub.end.exchange("site-1", asked(b"a"))

    asyncio.run(scene())
    assert hub.effects() == []
    assert hub.store.read_now(lambda tx: mailbox.position(tx, "site-1")) == mailbox.Position(posted=1)


def test_that_a_site_is_here_is_noted_with_what_it_brings_or_not_at_all(pair):
    hub = pair().hub
    noted = []

    async def scene():
        hub.end._admits = lambda _tx, _site: False
        with pytest.raises(NotAdmitted):
            await hub.end.exchange("site-1", asked(), came=noted.append)
        assert noted == []
        hub.end._admits = lambda _tx, _site: True
        await hub.end.exchange("site-1", asked(), came=noted.append)

    asyncio.run(scene())
    assert len(noted) == 1


@pytest.mark.promise(5)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 6)), min_size=1, max_size=6), max_size=6)
)
def test_letters_posted_together_are_numbered_in_order_and_each_name_counts_once(pair, batches):
    hub = pair().hub
    expected = {"a": [], "b": []}
    for batch in batches:
        letters = [Letter(to, f"n{name}", b"%d" % name) for to, name in batch]
        hub.store.write_now(lambda tx, letters=letters: mailbox.post_all(tx, letters, now=0.0))
        for to, name in batch:
            if name not in expected[to]:
                expected[to].append(name)
    for to, names in expected.items():
        found = hub.store.read_now(lambda tx, to=to: mailbox.take(tx, to, 0))
        assert [(m.seq, int(m.body)) for m in found] == list(enumerate(names, 1))
        assert hub.store.read_now(lambda tx, to=to: mailbox.position(tx, to)).posted == len(names)


def test_a_number_is_never_given_twice_also_after_the_names_were_forgotten(pair):
    hub = pair().hub

    def scene(tx):
        first = mailbox.post(tx, "a", "x", b"1", now=1.0)
        mailbox.acknowledge(tx, "a", first)
        mailbox.prune(tx, before=9.0)
        return first, mailbox.post(tx, "a", "y", b"2", now=10.0)

    assert hub.store.write_now(scene) == (1, 2)


def test_a_short_work_that_a_message_starts_is_answered_by_the_very_next_request(pair):
    there = pair(park=20.0, moment=20.0)

    async def scene():
        works = there.site.handle

        async def handle(arrival):
            await works(arrival)
            asyncio.get_running_loop().call_later(0.005, lambda: asyncio.ensure_future(there.site.send("u", b"y")))

        there.site.handle = handle
        there.site.start()
        await there.until(lambda: len(there.hub.parked) == 1)
        before = len(there.hub.requests)
        await there.hub.post(there.SITE, "d", b"x")
        await there.until(lambda: there.hub.effects() == [b"y"])
        await there.site.stop()
        return len(there.hub.requests) - before

    assert asyncio.run(scene()) == 1


# -- who asks


@pytest.mark.promise(3)
def test_a_stolen_token_is_of_no_use_with_another_key(pair):
    there = pair()

    async def scene():
        there.site.start()
        await there.until(lambda: there.hub.requests and "Authorization" in dict(there.hub.requests[-1].headers))
        await there.site.stop()

    asyncio.run(scene())
    request = there.hub.requests[-1]
    stolen = dict(request.headers)["Authorization"]
    for key, good in ((HeldKey.fresh(SeededRandomness(9, "thief")), False), (there.site.key, True)):
        proof = dpop.make_proof(
            key,
            "POST",
            request.url,
            nonce=there.hub.nonces.current(),
            token=stolen.removeprefix("DPoP "),
            now=time.time(),
            randomness=SeededRandomness(1, "proof"),
        )
        given = [("Authorization", stolen), ("DPoP", proof)]
        known = {"now": time.time(), "nonces": there.hub.nonces, "verified": there.hub.verifier}
        if good:
            assert authenticate("POST", request.url, given, **known).site == there.SITE
        else:
            with pytest.raises(Unauthenticated):
                authenticate("POST", request.url, given, **known)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "tamper",
    [
        lambda _: [],
        lambda headers: [h for h in headers if h[0] != "DPoP"],
        lambda headers: [h for h in headers if h[0] != "Authorization"],
        lambda headers: [*headers, ("dpop", dict(headers)["DPoP"])],
        lambda headers: [*headers, ("authorization", "Bearer x")],
        lambda headers: [(n, v.replace("DPoP ", "Bearer ")) for n, v in headers],
        lambda headers: [(n, v + "x" if n == "Authorization" else v) for n, v in headers],
        lambda headers: [(n, v.rsplit(".", 1)[0] + "." if n == "DPoP" else v) for n, v in headers],
        lambda headers: [(n, "x" * 10_000 if n == "DPoP" else v) for n, v in headers],
        lambda headers: [(n, "DPoP " if n == "Authorization" else v) for n, v in headers],
    ],
    ids=[
        "nothing",
        "no proof",
        "no token",
        "two proofs",
        "two tokens",
        "as a bearer token",
        "token altered",
        "signature stripped",
        "very long",
        "token empty",
    ],
)
def test_a_request_that_does_not_prove_who_sent_it_has_no_effect(pair, tamper):
    there = pair()

    async def scene():
        there.site.start()
        await there.until(lambda: there.hub.requests and "Authorization" in dict(there.hub.requests[-1].headers))
        await there.site.stop()
        request = there.hub.requests[-1]
        with pytest.raises(Unauthenticated) as caught:
            authenticate(
                request.method,
                request.url,
                tamper(list(request.headers)),
                now=time.time(),
                nonces=there.hub.nonces,
                verified=there.hub.verifier,
            )
        assert dict(caught.value.headers())["dpop-nonce"] == there.hub.nonces.current()

    asyncio.run(scene())
