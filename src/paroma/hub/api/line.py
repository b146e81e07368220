"""Routes of member sites: joining, the line, uploads."""

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paroma.hub.gate import FEDERATION
from paroma.hub.parts import Hub
from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.wire import framing
from paroma.trust.audit import witness
from paroma.trust.audit.notes import NoteKey
from paroma.trust.channel.authenticate import prove
from paroma.trust.channel.messages import EXCHANGE_PATH, MOST_REQUEST, UPLOAD_PATH
from paroma.trust.federation import invitations, join, members, pinning
from paroma.trust.policy.facts import Entity, Exchange, Join
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
        hub = self._hub
        site = await self._member(request)
        body = await body_of(request, MOST_REQUEST)
        return Response(await hub.line.exchange(site, body), media_type="application/msgpack")

    async def uploaded(self, request: Request) -> Response:
        """Where an upload goes on."""
        site = await self._member(request)
        return Response(await self._hub.uploads.wanted(site, request.path_params["whole"]))

    async def upload(self, request: Request) -> Response:
        """One chunk of an upload."""
        site = await self._member(request)
        data = await body_of(request, framing.CHUNK_BYTES + 4_096)
        taken = await self._hub.uploads.take(site, request.path_params["whole"], data, most_total=MOST_UPLOAD)
        return Response(taken)

    async def _member(self, request: Request) -> SiteId:
        hub = self._hub
        who = self._sign_in.principal(request)
        if who.role != "site" or who.site is None:
            raise Refused("this is for member sites", do="use the routes for people")
        site = who.site

        def look(tx: Connection) -> tuple[str, str]:
            member = members.member(tx, site)
            broken = witness.trouble(tx, NoteKey.parse(member.log_vkey).name)
            return member.status, "inconsistent" if broken else "consistent"

        status, log = await hub.store.read(look)
        await hub.gate.require(Entity("Site", site), Exchange(proven=True, member=status, log=log))
        if status in {"admitted", "offline"}:
            await hub.store.write(lambda tx: members.set_status(tx, site, "online", at=hub.ports.clock.now()))
        return site


def _invitation(tx: Connection, code: str, thumbprint: str, now: float) -> str:
    try:
        use = invitations.look(tx, code, thumbprint=thumbprint, now=now)
    except invitations.InvitationSpent:
        return "used"
    except invitations.InvitationEnded:
        return "expired"
    return "open" if use.site is None else "used-by-this-key"
