"""Routes of member sites: joining, the line, uploads."""

import asyncio
import functools
from collections.abc import Callable

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub.gate import FEDERATION
from paroma.hub.parts import Hub, SiteStanding, standing_of
from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.wire import framing
from paroma.trust.channel.authenticate import prove
from paroma.trust.channel.exchange import NotAdmitted
from paroma.trust.channel.messages import EXCHANGE_PATH, MOST_REQUEST, UPLOAD_PATH
from paroma.trust.federation import invitations, join, members, pinning
from paroma.trust.policy.facts import Entity, Join
from paroma.web.kit.http import body_of
from paroma.web.kit.sign_in import SignIn

MOST_UPLOAD = 4 << 30  # bytes of one contribution


class LineRoutes:
    """The routes of sites."""

    def __init__(self, hub: Hub, sign_in: SignIn) -> None:
        self._hub = hub
        self._sign_in = sign_in

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route(pinning.PATH, self.authority, methods=["GET"]),
            Route(join.PATH, self.join, methods=["POST"]),
            Route(EXCHANGE_PATH, self.exchange, methods=["POST"]),
            Route(UPLOAD_PATH + "{whole}", self.uploaded, methods=["GET"]),
            Route(UPLOAD_PATH + "{whole}", self.upload, methods=["PUT"]),
        ]

    async def authority(self, _request: Request) -> Response:
        """The certificate of the hub's authority: whoever asks compares it with their invitation."""
        return Response(self._hub.authority, media_type="application/x-pem-file")

    async def join(self, request: Request) -> Response:
        """A site shows its invitation and its keys."""
        hub, data, now = self._hub, await body_of(request, 16_384), self._hub.ports.clock.now()
        proof = prove(
            "POST",
            self._sign_in.origin + join.PATH,
            [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw],
            now=now,
            nonces=hub.nonces,
        )
        said, _ = join.read_request(data, hub=hub.settings.url)
        state = await hub.store.read(lambda tx: _invitation(tx, said.code, proof.thumbprint, now))
        await hub.gate.require(Entity("Site", proof.thumbprint), Join(proven=True, invitation=state), FEDERATION)

        def accept(tx: Connection) -> bytes:
            answer, new = join.accept(
                tx,
                data,
                proven=proof.thumbprint,
                key=hub.key,
                hub=hub.settings.url,
                log_vkey=hub.signer.vkey,
                now=now,
                randomness=hub.ports.randomness,
            )
            if new is not None:
                members.set_status(tx, new.site, "admitted", at=now)
                hub.log.write(
                    tx,
                    "member-joined",
                    site=new.site,
                    owner=new.owner,
                    title=new.title,
                    jwk=dict(new.key.jwk),
                    log_vkey=new.log_vkey,
                )
            return answer

        return Response(await hub.store.write(accept), 201, media_type="application/json")

    async def exchange(self, request: Request) -> Response:
        """The line: messages in, messages out, parked in between."""
        hub, site = self._hub, self._site(request)
        with hub.presence.here(site):
            body = await body_of(request, MOST_REQUEST)
            left = asyncio.ensure_future(_hung_up(request))
            try:
                known = hub.standings.get(site)
                if known is None or not hub.gate.decide(Entity("Site", site), known.facts()).allowed:
                    known = await self._decided(site)
                try:
                    answer = await hub.line.exchange(site, body, left, came=self._coming(site, known))
                except NotAdmitted:  # its standing has changed
                    known = await self._decided(site)
                    answer = await hub.line.exchange(site, body, left, came=self._coming(site, known))
            finally:
                left.cancel()
        return Response(answer, media_type="application/msgpack")

    async def uploaded(self, request: Request) -> Response:
        """Where an upload goes on."""
        site = await self._admit(self._site(request))
        with self._hub.presence.here(site):
            return Response(await self._hub.uploads.wanted(site, request.path_params["whole"]))

    async def upload(self, request: Request) -> Response:
        """One chunk of an upload."""
        site = await self._admit(self._site(request))
        with self._hub.presence.here(site):
            data = await body_of(request, framing.CHUNK_BYTES + 4_096)
            taken = await self._hub.uploads.take(site, request.path_params["whole"], data, most_total=MOST_UPLOAD)
            return Response(taken)

    def _site(self, request: Request) -> SiteId:
        who = self._sign_in.principal(request)
        if who.role != "site" or who.site is None:
            raise Refused("this is for member sites", do="use the routes for people")
        return who.site

    async def _admit(self, site: SiteId) -> SiteId:
        """Let a member's site in, and note that it is online. Raises Refused, which stands in the log then."""
        if (await self._decided(site)).status != "online":
            await self._hub.arrived(site)
        return site

    async def _decided(self, site: SiteId) -> SiteStanding:
        """The standing with which policy lets a site in. Raises Refused, which stands in the log then."""
        hub = self._hub
        found = await hub.store.read(lambda tx: standing_of(tx, site))
        try:
            await hub.gate.require(Entity("Site", site), found.facts())
        except Refused:
            await hub.up_to_date()  # its tokens and its other requests end now, not with the next tick
            raise
        hub.standings[site] = found
        return found

    def _coming(self, site: SiteId, known: SiteStanding) -> Callable[[Connection], None] | None:
        """What notes that the site is online, where that is news."""
        self._hub.presence.expect([site])
        return None if known.status == "online" else functools.partial(self._hub.lifecycle.back, site=site)


async def _hung_up(request: Request) -> None:
    """Until the site closes the connection: a request that nobody waits for is no sign of life."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _invitation(tx: Connection, code: str, thumbprint: str, now: float) -> str:
    try:
        use = invitations.look(tx, code, thumbprint=thumbprint, now=now)
    except invitations.InvitationSpent:
        return "used"
    except invitations.InvitationEnded:
        return "expired"
    return "open" if use.site is None else "used-by-this-key"
