"""A hub that lies to some of its sites: what its program sends to them is changed on the way out.

The program behind it is the real one and believes that it is honest; its key signs nothing false. What a site must not do whatever
a hub says is the site's own code to refuse.
"""

import random
from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from paroma.kernel.wire import framing
from paroma.lab.simulation.network import App, Message, Scope
from paroma.lab.simulation.plot import Lie
from paroma.learn.runs.messages import Closed, Complete, OpenAttempt, Proposal, sum_digest
from paroma.site.parts import FromHub
from paroma.trust.channel.messages import EXCHANGE_PATH, MOST_MESSAGE, MOST_REQUEST, Envelope, Exchanged

OFTEN: Final = 0.7  # the chance that a message which a lie is about is changed


class Liar:
    """An ASGI program in front of the hub's. lied_to: the sites that are lied to, as machines. told: how often it lied."""

    def __init__(
        self, app: App, lies: Collection[Lie], lied_to: Collection[str], source: random.Random, told: list[str]
    ) -> None:
        """told: one line is added to it for each lie."""
        self._app = app
        self._lies = lies
        self._lied_to = lied_to
        self._source = source
        self._told = told
        self._before: dict[str, list[bytes]] = {}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request; the answer to a site's exchange may be changed."""
        sender = str(scope.get("client", ("",))[0])
        if scope["type"] != "http" or scope["path"] != EXCHANGE_PATH or sender not in self._lied_to:
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._app(scope, receive, hold)
        body = b"".join(part.get("body", b"") for part in held if part["type"] == "http.response.body")
        start = next((part for part in held if part["type"] == "http.response.start"), None)
        if start is not None and start["status"] == 200:  # HTTP
            body = self._changed(sender, body)
            others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            start["headers"] = [*others, (b"content-length", str(len(body)).encode())]
        if start is not None:
            await send(start)
            await send({"type": "http.response.body", "body": body})

    def _changed(self, site: str, body: bytes) -> bytes:
        reply = framing.unpack(body, Exchanged, MOST_REQUEST)
        return framing.pack(replace(reply, incoming=tuple(self._lie(site, one) for one in reply.incoming)))

    def _lie(self, site: str, envelope: Envelope) -> Envelope:
        message = framing.unpack(envelope.body, FromHub, MOST_MESSAGE)
        earlier = self._before.setdefault(site, [])
        for lie in self._lies:
            if self._source.random() > OFTEN:
                continue
            said = self._source.choice(earlier) if lie is Lie.AGAIN and earlier else framing.pack(_false(lie, message))
            if said != envelope.body:
                self._told.append(f"{site}: {lie.value}")
                return replace(envelope, body=said)
        if isinstance(message, OpenAttempt | Proposal | Complete | Closed):
            earlier.append(envelope.body)
        return envelope


def _false(lie: Lie, message: msgspec.Struct) -> msgspec.Struct:
    """What is said in its place; the message itself where this lie is not about it."""
    match lie, message:
        case Lie.PROPOSALS, Proposal():  # whoever is last is left out, whether it is the receiver or not
            gone = message.members[-1].site
            kept = tuple(member for member in message.members if member.site != gone)
            return replace(message, members=kept, boxes=tuple(box for box in message.boxes if box.site != gone))
        case Lie.SIGNATURES, Complete():
            return replace(message, signatures=message.signatures[1:])
        case Lie.MODEL, OpenAttempt():
            return replace(message, request=message.request[:-1] + bytes([message.request[-1] ^ 1]))
        case Lie.SUM, Closed():
            other = bytes([message.total[0] ^ 1]) + message.total[1:]
            return replace(message, total=other, digest=sum_digest(message.salt, other))
        case _:
            return message
