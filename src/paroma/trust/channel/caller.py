"""Requests that prove who sends them: the client's half of `authenticate`, for sites and for people's programs.

Gets a token when there is none that lives long enough, makes a fresh proof for each request, takes over the hub's
nonces, and repeats a request only after an answer that says that nothing happened (401).
"""

import asyncio
import re
from typing import Final

import msgspec

from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import printable
from paroma.kernel.randomness import Randomness
from paroma.kernel.wire.network import HttpRequest, HttpResponse, Network
from paroma.trust.channel.authenticate import NONCE_HEADER
from paroma.trust.channel.messages import TOKEN_PATH
from paroma.trust.identity import clients, dpop
from paroma.trust.keys.signing import SigningKey

SPARE_SECONDS: Final = 10.0  # a token that ends sooner is not used: the request may be on its way that long
TRIES: Final = 4  # a stale token and a stale nonce may meet
TOKEN_WAIT: Final = 15.0  # seconds
_ERROR: Final = re.compile(r'error="([a-z_]{1,40})"')


class NotLetIn(Refused):
    """The hub does not believe who we are, or no longer knows us."""


class _Problem(msgspec.Struct, frozen=True):
    """RFC 9457; other members are passed over."""

    title: str = ""
    detail: str = ""
    do: str = ""
    error: str = ""  # of RFC 6749, section 5.2


class Caller:
    """Speaks to one hub for one subject with one key. Requests may run side by side."""

    def __init__(
        self, network: Network, key: SigningKey, subject: str, hub: str, *, clock: Clock, randomness: Randomness
    ) -> None:
        """subject: a SiteId or PersonId. hub: its origin."""
        self.hub = hub
        self._network = network
        self._key = key
        self._subject = subject
        self._clock = clock
        self._randomness = randomness
        self._nonce: str | None = None
        self._token: str | None = None
        self._token_ends = 0.0  # monotonic
        self._asking = asyncio.Lock()

    async def call(
        self, method: str, path: str, body: bytes = b"", *, wait: float, kind: str = "application/octet-stream"
    ) -> HttpResponse:
        """The hub's answer to this request, whatever its status but 401. wait: seconds until the whole answer must be
        here.

        Raises NotLetIn, Unavailable, and what the network raises.
        """
        url = self.hub + path
        for _ in range(TRIES):
            token = await self._fresh_token()
            reply = await self._send(method, url, body, token=token, kind=kind, wait=wait)
            if reply.status != 401:
                return reply
            if _error(reply) == "invalid_token" and self._token == token:
                self._token = None
            elif _error(reply) not in {"use_dpop_nonce", "invalid_token"}:
                raise _not_let_in(reply)
        raise _unsteady()

    async def prove(self, method: str, path: str, body: bytes, *, kind: str, wait: float) -> HttpResponse:
        """A request with a proof and no token: joining, enrolling. Repeated only where the hub asks for its nonce."""
        for _ in range(TRIES):
            reply = await self._send(method, self.hub + path, body, token=None, kind=kind, wait=wait)
            if reply.status not in {400, 401} or _error(reply) != "use_dpop_nonce":
                return reply
        raise _unsteady()

    async def _fresh_token(self) -> str:
        async with self._asking:  # one question for all requests that wait
            if self._token is None or self._clock.monotonic() >= self._token_ends:
                asked = self._clock.monotonic()
                reply = await self._ask()
                self._token = reply.access_token
                self._token_ends = asked + reply.expires_in - SPARE_SECONDS
            return self._token

    async def _ask(self) -> clients.TokenReply:
        for _ in range(TRIES):
            now = self._clock.now()
            assertion = clients.make_assertion(self._key, self._subject, self.hub, now=now, randomness=self._randomness)
            reply = await self._send(
                "POST",
                self.hub + TOKEN_PATH,
                clients.token_request(assertion),
                token=None,
                kind="application/x-www-form-urlencoded",
                wait=TOKEN_WAIT,
            )
            if reply.status == 200:
                return clients.read_reply(reply.body)
            if reply.status >= 500 or reply.status == 429:
                raise Unavailable(f"the hub answers {reply.status} to the request for a token", do="repeat in a moment")
            if _error(reply) != "use_dpop_nonce":
                raise _not_let_in(reply)
        raise _unsteady()

    async def _send(
        self, method: str, url: str, body: bytes, *, token: str | None, kind: str, wait: float
    ) -> HttpResponse:
        proof = dpop.make_proof(
            self._key,
            method,
            url,
            nonce=self._nonce,
            token=token,
            now=self._clock.now(),
            randomness=self._randomness,
        )
        headers = [("DPoP", proof), ("Content-Type", kind)]
        if token is not None:
            headers.append(("Authorization", f"DPoP {token}"))
        reply = await self._network.send(
            HttpRequest(method=method, url=url, headers=tuple(headers), body=body, timeout=wait)
        )
        self._nonce = reply.headers.get(NONCE_HEADER, self._nonce)
        return reply


def problem_of(reply: HttpResponse) -> tuple[str, str]:
    """What an answer of the hub says is wrong, and what to do: (sentence, next step), made printable."""
    said = _problem(reply)
    sentence = said.detail or said.title or f"the hub answers {reply.status}"
    return printable(sentence, longest=300), printable(said.do or "repeat, or ask the hub's operator", longest=300)


def _unsteady() -> Unavailable:
    """Each answer asked for another nonce: the hub restarts, or a balancer sends every request to another one."""
    return Unavailable("the hub asks for a new nonce again and again", do="repeat in a moment")


def _not_let_in(reply: HttpResponse) -> NotLetIn:
    sentence, do = problem_of(reply)
    return NotLetIn(sentence, do=do)


def _error(reply: HttpResponse) -> str:
    found = _ERROR.search(reply.headers.get("www-authenticate", ""))
    return found[1] if found else _problem(reply).error


def _problem(reply: HttpResponse) -> _Problem:
    try:
        return msgspec.json.decode(reply.body[:16_384], type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a proxy's page, say: the status has to do
        return _Problem()


def refused_by(reply: HttpResponse) -> BadInput | Refused | Unavailable:
    """The error that an answer with status 400 or more stands for."""
    sentence, do = problem_of(reply)
    if reply.status >= 500 or reply.status in {408, 425, 429}:
        return Unavailable(sentence, do=do)
    return BadInput(sentence, do=do) if reply.status in {400, 413, 415, 422} else Refused(sentence, do=do)
