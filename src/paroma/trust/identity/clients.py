"""How a program or a person asks for a token: `private_key_jwt` (RFC 7523, section 2.2) together with a proof.

The assertion says who asks; the proof (RFC 9449, section 5) shows that the key is there now, under a nonce of this
boot. Both must be signed by the one key that the asker enrolled, so an assertion that somebody copied is of no use,
before or after a restart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from paroma.kernel import canonical
from paroma.kernel.clock import Clock
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.trust.identity import dpop, jose, tokens
from paroma.trust.identity.nonces import Nonces
from paroma.trust.keys.signing import PublicKey, SignatureInvalid, SigningKey

TYP: Final = "client-authentication+jwt"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFE_SECONDS: Final = 60
MOST_BODY: Final = 8_192


class ClientUnknown(Refused):
    """Nobody who may ask for a token signed this.

    The sentence is the same whether the name is unknown, revoked or mis-signed.
    """

    def __init__(self) -> None:
        super().__init__("this name and this key do not belong to a member or a person here", do="join or log in again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who may have a token: a site (role `site`) or a person, with the key enrolled for it."""

    subject: str
    role: tokens.Role
    site: SiteId | None
    key: PublicKey


class TokenReply(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749, section 5.1, with the token type of RFC 9449."""

    access_token: str
    token_type: str = "DPoP"  # noqa: S105  # the name of the scheme
    expires_in: int = tokens.LIFE_SECONDS  # seconds


def make_assertion(key: SigningKey, subject: str, audience: str, *, now: float, randomness: Randomness) -> str:
    """`subject` says to `audience` (the hub's origin) that it is asking. now: seconds since 1970."""
    claims: dict[str, object] = {
        "iss": subject,
        "sub": subject,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + LIFE_SECONDS,
        "jti": jose.to_text(randomness.take(16)),
    }
    return jose.write(TYP, claims, key)


def verify_assertion(
    assertion: str, *, audience: str, find: Callable[[str], Client | None], now: float
) -> tuple[Client, str]:
    """The client that made `assertion`, and the assertion's `jti` (whoever calls refuses the second use of it).

    find: the client of a name, None where there is none or it is revoked. Raises TokenUnreadable, TokenInvalid,
    ClientUnknown.
    """
    jws = jose.read(assertion, TYP)
    name = jws.text("sub", longest=64)
    if jws.text("iss", longest=64) != name:
        raise tokens.TokenInvalid("issuer and subject of an assertion must be the same")
    if jws.text("aud") != audience:
        raise tokens.TokenInvalid("the assertion is for another party")
    iat, exp = jws.number("iat"), jws.number("exp")
    if not iat - dpop.SKEW_SECONDS <= now < exp + dpop.SKEW_SECONDS or not 0 < exp - iat <= LIFE_SECONDS:
        raise tokens.TokenInvalid("the assertion is of another time, or lives too long")
    client = find(name)
    if client is None:
        raise ClientUnknown
    try:
        jws.signed_by(client.key)
    except SignatureInvalid as problem:
        raise ClientUnknown from problem
    return client, jws.text("jti", longest=128)


def token_request(assertion: str) -> bytes:
    """The body of the request for a token: RFC 6749 section 4.4 with RFC 7523 section 2.2, form-encoded."""
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    return urlencode(form).encode()


def assertion_in(body: bytes) -> str:
    """The assertion in the body of a request for a token. Raises BadInput."""
    do = "send grant_type, client_assertion_type and client_assertion, once each"
    if len(body) > MOST_BODY:
        raise BadInput(f"the request for a token is longer than {MOST_BODY} bytes", do=do)
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=3)
    except ValueError as problem:
        raise BadInput("the request for a token is not a form", do=do) from problem
    form = dict(pairs)
    if len(form) != len(pairs) or form.keys() != {"grant_type", "client_assertion_type", "client_assertion"}:
        raise BadInput("the request for a token has other fields than expected", do=do)
    if form["grant_type"] != "client_credentials" or form["client_assertion_type"] != ASSERTION_TYPE:
        raise BadInput("this kind of grant is not offered", do=do)
    return form["client_assertion"]


def claimed(body: bytes) -> str:
    """Who the assertion in a request for a token says it is from; nothing is verified yet. Raises BadInput, TokenUnreadable."""
    return jose.read(assertion_in(body), TYP).text("sub", longest=64)


class Issuer:
    """Gives out tokens: the hub's token endpoint, without the HTTP around it."""

    def __init__(self, key: SigningKey, origin: str, *, nonces: Nonces, clock: Clock, randomness: Randomness) -> None:
        """origin: under which the hub is known; issuer and audience of its tokens."""
        self.origin = origin
        self._key = key
        self._nonces = nonces
        self._clock = clock
        self._randomness = randomness

    def grant(self, body: bytes, proof: str, *, url: str, find: Callable[[str], Client | None], epoch: int) -> bytes:
        """Answer POST `url` with `body` and the DPoP header `proof`: a `TokenReply` as JSON.

        find and epoch come from one view of the store, so that a token of this epoch never names somebody revoked in
        it. Raises BadInput, TokenInvalid, ClientUnknown, ProofInvalid, NonceNeeded, Replayed.
        """
        now = self._clock.now()
        client, jti = verify_assertion(assertion_in(body), audience=self.origin, find=find, now=now)
        dpop.verify_proof(
            proof, method="POST", url=url, token=None, thumbprint=client.key.thumbprint, now=now, nonces=self._nonces
        )
        self._nonces.once("assertion", client.subject, jti)
        token = tokens.issue(
            self._key,
            issuer=self.origin,
            audience=self.origin,
            subject=client.subject,
            role=client.role,
            site=client.site,
            thumbprint=client.key.thumbprint,
            epoch=epoch,
            now=now,
            randomness=self._randomness,
        )
        return msgspec.json.encode(TokenReply(access_token=token))


def read_reply(body: bytes) -> TokenReply:
    """A token reply as it came over the line. Raises BadInput."""
    return canonical.decode_as(body, TokenReply)
