import asyncio
import hashlib
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from paroma.kernel.blocking import Inline as Here
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire import framing
from paroma.kernel.wire.network import PeerUnavailable
from paroma.kernel.wire.spool import UploadDamaged
from paroma.trust.channel import uploads
from paroma.trust.channel.uploads import Inline, Uploaded, UploadMissing, UploadRefused, send_body

BIG = SeededRandomness(1, "big").take((3 << 20) + 12_345)


class Cut:
    """Loses requests or replies as told, then works."""

    def __init__(self, hub, fates):
        self.hub = hub
        self.fates = list(fates)

    async def send(self, request):
        fate = self.fates.pop(0) if self.fates else "arrives"
        if fate == "request lost":
            raise PeerUnavailable("cut", do="repeat")
        reply = await self.hub.send(request)
        if fate == "reply lost":
            raise PeerUnavailable("cut", do="repeat")
        if fate == "hub restarts":
            self.hub.boot()
        return reply


async def insist(there, content):
    for _ in range(40):
        try:
            return await send_body(there.site.caller, content, Here())
        except Unavailable:
            await asyncio.sleep(0)
    raise AssertionError("it never arrived")


def connect(there, fates=()):
    there.site.wire = Cut(there.hub, fates)
    there.site.start()


def test_a_small_body_stays_in_the_message(pair):
    there = pair()

    async def scene():
        connect(there)
        body = await send_body(there.site.caller, b"x" * uploads.MOST_INLINE, Here())
        assert body == Inline(content=b"x" * uploads.MOST_INLINE)
        assert await there.hub.uploads.open(there.SITE, body) == body.content
        await there.site.stop()

    asyncio.run(scene())


@pytest.mark.promise(5)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.sampled_from(["arrives", "request lost", "reply lost", "hub restarts"]), max_size=12))
def test_an_upload_that_is_cut_anywhere_arrives_whole(pair, fates):
    there = pair()

    async def scene():
        connect(there, fates)
        body = await insist(there, BIG)
        path = await there.hub.uploads.open(there.SITE, body)
        assert path.read_bytes() == BIG
        assert await insist(there, BIG) == body
        await there.hub.uploads.remove(there.SITE, body.whole)
        with pytest.raises(UploadMissing):
            await there.hub.uploads.open(there.SITE, body)
        await there.site.stop()

    asyncio.run(scene())


@pytest.mark.promise(3)
def test_a_truncated_altered_or_foreign_upload_is_not_there(pair):
    there = pair()
    whole = hashlib.sha256(BIG).digest()
    pieces = list(framing.chunks(BIG))
    hub = there.hub.uploads

    async def scene():
        for piece in pieces[:-1]:
            await hub.take(there.SITE, whole.hex(), piece, most_total=8 << 20)
        named = Uploaded(whole=whole, total=len(BIG))
        with pytest.raises(UploadMissing):
            await hub.open(there.SITE, named)
        altered = pieces[-1][:-1] + bytes([pieces[-1][-1] ^ 1])
        with pytest.raises(UploadDamaged):
            await hub.take(there.SITE, whole.hex(), altered, most_total=8 << 20)
        assert framing.unpack(await hub.wanted(there.SITE, whole.hex()), uploads.Wanted).wanted == 0
        for piece in pieces:
            await hub.take(there.SITE, whole.hex(), piece, most_total=8 << 20)
        assert (await hub.open(there.SITE, named)).read_bytes() == BIG
        for wrong in (Uploaded(whole=whole, total=len(BIG) - 1), Uploaded(whole=bytes(32), total=1)):
            with pytest.raises(UploadMissing):
                await hub.open(there.SITE, wrong)
        with pytest.raises(UploadMissing):
            await hub.open("site-0000000000000002", named)

    asyncio.run(scene())


@pytest.mark.promise(3)
@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "A" * 64, "", "zz", "ab" * 31])
def test_an_upload_has_no_other_name_than_its_hash(pair, name):
    there = pair()
    with pytest.raises(BadInput):
        asyncio.run(there.hub.uploads.take(there.SITE, name, next(framing.chunks(b"x")), most_total=10))


def test_more_than_was_allowed_or_declared_is_refused(pair):
    there = pair()
    hub = there.hub.uploads
    piece = next(framing.chunks(b"x" * 100))
    whole = hashlib.sha256(b"x" * 100).hexdigest()

    async def scene():
        with pytest.raises(ParomaError):
            await hub.take(there.SITE, whole, piece, most_total=99)
        for number in range(uploads.MOST_UPLOADS):
            content = b"%d" % number
            await hub.take(
                there.SITE, hashlib.sha256(content).hexdigest(), next(framing.chunks(content)), most_total=99
            )
        with pytest.raises(UploadRefused):
            await hub.take(there.SITE, whole, piece, most_total=100)
        await hub.sweep(before=time.time() + 1)
        await hub.take(there.SITE, whole, piece, most_total=100)

    asyncio.run(scene())


def test_a_body_the_hub_will_not_take_is_refused_with_its_sentence(pair):
    there = pair()

    async def scene():
        connect(there)
        with pytest.raises((Refused, BadInput)) as caught:
            await send_body(there.site.caller, bytes((32 << 20) + 1), Here())
        assert "bytes" in caught.value.message
        await there.site.stop()

    asyncio.run(scene())
