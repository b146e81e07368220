"""Signing in at an OpenID Provider: what is asked of it, and what of its answers is believed.

Authorization code with PKCE (RFC 7636), pushed where the provider offers it (RFC 9126), `private_key_jwt` (RFC 7523), back-channel
logout. OpenID Connect Core 1.0 and Discovery 1.0 with their names. Nothing in a token chooses how it is verified: the algorithm
is the one that was agreed when this program was registered, the keys come from the address that the discovery document names, and
that document may name addresses of the operator's list only, so it can lead nowhere, inward or outward. What comes is read with
limits (bytes, depth, members, time) before it is parsed. Knows no database and no route.
"""

import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from paroma.kernel import canonical
from paroma.kernel.canonical import Limits
from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk
from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.ids import printable
from paroma.kernel.randomness import Randomness
from paroma.kernel.wire.network import (
    HttpRequest,
    HttpsNetwork,
    LoopbackNetwork,
    Network,
    loopback_origin,
    origin,
    trusting,
)
from paroma.trust.identity import jose
from paroma.trust.identity.clients import ASSERTION_TYPE
from paroma.trust.identity.tokens import ROLES
from paroma.trust.keys.files import load_or_create
from paroma.trust.keys.signing import SignatureInvalid, SigningKey

WELL_KNOWN: Final = "/.well-known/openid-configuration"
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
MOST_REPLY: Final = 256 << 10  # bytes
REPLY_SECONDS: Final = 10.0
MOST_TOKEN: Final = 32_768  # characters: people are in many groups
SKEW_SECONDS: Final = 60
TOKEN_SECONDS: Final = 600  # how old an ID or logout token may be
KEPT_SECONDS: Final = 300.0  # how long the discovery document and the keys are used without looking again
AGAIN_SECONDS: Final = 10.0  # an unknown key makes us look again, but not more often than this
_LIMITS: Final = Limits(most_bytes=MOST_REPLY, most_depth=12, most_items=10_000, most_digits=24)
_HEADER: Final = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})  # names only: none of them brings a key
_RSA_BITS: Final = range(2048, 8193)

Algorithm = Literal["RS256", "PS256", "ES256"]


class ProviderUnfit(Refused):
    """What the provider says about itself cannot be worked with."""


class LoginInvalid(Refused):
    """What came back from the provider is not the answer to this login."""

    def __init__(self, why: str, *, do: str = "sign in again from the beginning") -> None:
        super().__init__(f"the login does not hold: {why}", do=do)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """How people sign in at a provider; nothing where `issuer` is empty.

    issuer: the provider's name, exactly as it gives it, such as `https://login.hospital.example`. client: the name under which this
    program is registered there. algorithm: of its ID tokens, as registered. origins: addresses besides the issuer's where its
    endpoints may lie. claim, roles: which claim of an ID token gives which role, as `value=role`, the first that fits; without
    them only those whom a link enrolled get in. authority: PEM file of the authority of its certificate; those that this machine
    trusts if not set.
    """

    issuer: str = ""
    client: str = ""
    algorithm: Algorithm = "RS256"
    origins: tuple[str, ...] = ()
    claim: str = ""
    roles: tuple[str, ...] = ()
    authority: Path | None = None

    def __post_init__(self) -> None:
        if not self.issuer:
            return
        where = urlsplit(self.issuer)
        if where.query or where.fragment or self.issuer.endswith("/") != (where.path == "/"):
            raise BadInput(
                "`login.issuer` is no issuer", do="write it exactly as the provider gives it, without `?` or `#`"
            )
        for address in (self.issuer, *self.origins):
            _origin(address, loopback=self.loopback)
        if not self.client:
            raise BadInput("`login.client` is not set", do="set it to the name of this program at the provider")
        if bool(self.claim) != bool(self.roles):
            raise BadInput("of `login.claim` and `login.roles` one is missing", do="set both, or none")
        for text in self.roles:
            value, _, role = text.rpartition("=")
            if not value or role not in ROLES - {"site"}:
                raise BadInput(
                    f"`login.roles` holds `{printable(text)}`",
                    do="write each as `value=role`, such as `committee=committee`",
                )

    @property
    def loopback(self) -> bool:
        """Whether the provider runs on this very machine, without TLS."""
        return self.issuer.startswith("http:")

    def role(self, claims: Mapping[str, object]) -> str | None:
        """The role that the mapped claim gives, the first of the settings that fits."""
        said = claims.get(self.claim) if self.claim else None
        values = {one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str)}
        return next((text.rpartition("=")[2] for text in self.roles if text.rpartition("=")[0] in values), None)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What we need of a discovery document (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    response_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    code_challenge_methods_supported: list[str] = []
    pushed_authorization_request_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a login that began must be answered with. Each 32 random bytes as base64url."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom the provider vouches for. login: its session, where it names one."""

    account: str  # SHA-256 of issuer and subject, hex
    name: str
    login: str | None
    claims: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut:
    """What ended at the provider: one session (login), or all of an account."""

    account: str | None
    login: str | None


def network_for(settings: ProviderSettings) -> Network:
    """The way to the provider and to nothing else. Raises BadInput."""
    allowed = (settings.issuer, *settings.origins)
    if settings.loopback:
        return LoopbackNetwork(allowed, most_reply_bytes=MOST_REPLY)
    try:
        trust = trusting(settings.authority.read_bytes()) if settings.authority else ssl.create_default_context()
    except OSError as problem:
        raise BadInput(
            f"`login.authority` cannot be read: {problem.strerror}", do="name the PEM file of the provider's authority"
        ) from problem
    return HttpsNetwork(allowed, trust=trust, most_reply_bytes=MOST_REPLY)


class Provider:
    """One provider, and this program as its client."""

    def __init__(
        self,
        settings: ProviderSettings,
        network: Network,
        key: SigningKey,
        *,
        clock: Clock,
        randomness: Randomness,
        patience: float = REPLY_SECONDS,
    ) -> None:
        """key: of this program as a client; the provider knows its public half. patience: s until a whole reply must be here."""
        self.settings = settings
        self._patience = patience
        self._network = network
        self._key = key
        self._clock = clock
        self._randomness = randomness
        self._document: tuple[float, Document] | None = None
        self._keys: tuple[float, list[Mapping[str, object]]] | None = None

    @property
    def jwks(self) -> dict[str, object]:
        """What the provider is given to know this program by."""
        return {"keys": [{**self._key.public_jwk, "use": "sig", "alg": jose.ALGORITHM}]}

    async def authorization(self, begun: Begun, redirect: str) -> str:
        """Where to send the browser. Raises ProviderUnfit, Unavailable."""
        document = await self.document()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client,
            "redirect_uri": redirect,
            "scope": "openid profile",
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": jose.to_text(sha256(begun.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        if document.pushed_authorization_request_endpoint is not None:
            reply = await self._post(document.pushed_authorization_request_endpoint, asked)
            uri = reply.get("request_uri")
            if not isinstance(uri, str) or not 0 < len(uri) <= 512 or not uri.isprintable():
                raise ProviderUnfit("the provider took the request and gave no `request_uri`", do="ask whoever runs it")
            asked = {"client_id": self.settings.client, "request_uri": uri}
        joint = "&" if urlsplit(document.authorization_endpoint).query else "?"
        return f"{document.authorization_endpoint}{joint}{urlencode(asked)}"

    async def redeem(self, code: str, begun: Begun, redirect: str) -> Identity:
        """Whom the provider vouches for by `code`. Raises LoginInvalid, ProviderUnfit, Unavailable."""
        document = await self.document()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": self.settings.client,
            "code_verifier": begun.verifier,
        }
        reply = await self._post(document.token_endpoint, form)
        token = reply.get("id_token")
        if not isinstance(token, str):
            raise LoginInvalid("the provider gave no ID token")
        claims = await self._verified(token)
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), begun.nonce.encode()):
            raise LoginInvalid("the ID token answers another login")
        subject = _subject(claims)
        name = next(
            (c for one in ("name", "preferred_username") if isinstance(c := claims.get(one), str) and c), subject
        )
        sid = claims.get("sid")
        return Identity(
            account=_mark(self.settings.issuer, "sub", subject),
            name=printable(name, longest=120).strip() or "Somebody",
            login=_mark(self.settings.issuer, "sid", sid) if isinstance(sid, str) else None,
            claims=claims,
        )

    async def logged_out(self, token: str) -> LoggedOut:
        """Who is out, by a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6). Raises LoginInvalid."""
        claims = await self._verified(token, typ="logout+jwt")
        events = claims.get("events")
        if not isinstance(events, dict) or events.get(LOGOUT_EVENT) != {} or "nonce" in claims:
            raise LoginInvalid("the token is no logout token", do="send the logout token of this provider")
        sid = claims.get("sid")
        if not isinstance(sid, str) and "sub" not in claims:
            raise LoginInvalid("the logout token names nobody", do="send one with `sub` or `sid`")
        return LoggedOut(
            account=_mark(self.settings.issuer, "sub", _subject(claims)) if "sub" in claims else None,
            login=_mark(self.settings.issuer, "sid", sid) if isinstance(sid, str) else None,
        )

    async def document(self) -> Document:
        """The discovery document, looked at again when it is old. Raises ProviderUnfit, Unavailable."""
        now = self._clock.monotonic()
        if self._document is None or now - self._document[0] > KEPT_SECONDS:
            said = await self._get(self.settings.issuer.rstrip("/") + WELL_KNOWN)
            self._document = now, read_document(said, self.settings)
        return self._document[1]

    async def _verified(self, token: str, typ: str = "JWT") -> Mapping[str, object]:
        header, claims, signed, signature = take_apart(token, self.settings.algorithm, typ)
        kid = header.get("kid")
        verify_signature(await self._key_of(kid), self.settings.algorithm, signed, signature)
        check_claims(claims, self.settings, self._clock.now())
        return claims

    async def _key_of(self, kid: object) -> Mapping[str, object]:
        """The one key of this name; an unknown name makes us look again, as keys are changed. Raises LoginInvalid."""
        now = self._clock.monotonic()
        if self._keys is None or now - self._keys[0] > KEPT_SECONDS:
            self._keys = now, await self._fetch_keys()
        found = _named(self._keys[1], kid, self.settings.algorithm)
        if not found and now - self._keys[0] > AGAIN_SECONDS:
            self._keys = now, await self._fetch_keys()
            found = _named(self._keys[1], kid, self.settings.algorithm)
        if len(found) != 1:
            raise LoginInvalid("the provider publishes no single key that it could be signed with")
        return found[0]

    async def _fetch_keys(self) -> list[Mapping[str, object]]:
        keys = (await self._get((await self.document()).jwks_uri)).get("keys")
        if not isinstance(keys, list) or not all(isinstance(one, dict) for one in keys):
            raise ProviderUnfit("the provider's keys are no list of keys", do="ask whoever runs the provider")
        return keys

    async def _get(self, url: str) -> Mapping[str, object]:
        request = HttpRequest(method="GET", url=url, headers=(("Accept", "application/json"),), timeout=self._patience)
        reply = await self._network.send(request)
        if reply.status != 200:
            raise ProviderUnfit(f"the provider answers {reply.status} at `{printable(url)}`", do="check `login.issuer`")
        return _object(reply.body, url)

    async def _post(self, url: str, form: Mapping[str, str]) -> Mapping[str, object]:
        now = int(self._clock.now())
        claims: dict[str, object] = {
            "iss": self.settings.client,
            "sub": self.settings.client,
            "aud": self.settings.issuer,
            "iat": now,
            "exp": now + SKEW_SECONDS,
            "jti": jose.to_text(self._randomness.take(16)),
        }
        proven = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": jose.write("JWT", claims, self._key)}
        headers = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"))
        body = urlencode({**form, **proven}).encode()
        reply = await self._network.send(
            HttpRequest(method="POST", url=url, headers=headers, body=body, timeout=self._patience)
        )
        said = _object(reply.body, url)
        if reply.status not in {200, 201}:
            why = printable(str(said.get("error", reply.status)), longest=60)
            raise LoginInvalid(f"the provider refused with `{why}`", do="sign in again; if it stays, ask the operator")
        return said


def enrol_address(settings: ProviderSettings, origin: str, code: str) -> str:
    """Where whoever signs in at the provider spends the code of an enrolment link. Raises BadInput where none is set."""
    if not settings.issuer:
        raise BadInput(
            "no provider of logins is set here", do="set `login.issuer`, or make the link without `--provider`"
        )
    return f"{origin}/login/enrol/{code}"


def open_provider(
    settings: ProviderSettings,
    network: Network | None,
    folder: Path,
    *,
    disk: Disk,
    clock: Clock,
    randomness: Randomness,
) -> Provider | None:
    """The provider of a program whose keys lie in `folder`/keys; None where none is set."""
    if not settings.issuer or network is None:
        return None
    key = load_or_create(folder / "keys" / "login.pem", disk, randomness)
    return Provider(settings, network, key, clock=clock, randomness=randomness)


def read_document(said: Mapping[str, object], settings: ProviderSettings) -> Document:
    """The discovery document, where it is this provider's and leads to its own addresses only. Raises ProviderUnfit."""
    try:
        found = msgspec.convert(said, Document)
    except msgspec.ValidationError as problem:
        raise ProviderUnfit(
            f"the provider's discovery document does not fit: {printable(str(problem).lower(), longest=120)}",
            do="check `login.issuer`",
        ) from problem
    if found.issuer != settings.issuer:
        raise ProviderUnfit(
            f"the discovery document is that of `{printable(found.issuer)}`",
            do="set `login.issuer` to exactly the name it gives",
        )
    allowed = {_origin(one, loopback=settings.loopback) for one in (settings.issuer, *settings.origins)}
    ways = [found.authorization_endpoint, found.token_endpoint, found.jwks_uri]
    for way in [*ways, *filter(None, [found.pushed_authorization_request_endpoint])]:
        try:
            there = _origin(way, loopback=settings.loopback)
        except BadInput:
            there = ""
        if there not in allowed:
            raise ProviderUnfit(
                f"the provider's discovery document leads to `{printable(way, longest=100)}`, which is not among its addresses",
                do="name its origin in `login.origins` if the provider really answers there",
            )
    if "code" not in found.response_types_supported or "S256" not in found.code_challenge_methods_supported:
        raise ProviderUnfit(
            "the provider offers no authorization code with PKCE (S256)", do="ask whoever runs it to turn it on"
        )
    if settings.algorithm not in found.id_token_signing_alg_values_supported:
        raise ProviderUnfit(
            f"the provider does not sign ID tokens with {settings.algorithm}",
            do="set `login.algorithm` to what was registered there",
        )
    return found


def take_apart(token: str, algorithm: str, typ: str) -> tuple[Mapping[str, Any], Mapping[str, Any], bytes, bytes]:
    """Header, claims, signed bytes and signature of a compact JWS; nothing of it is believed yet. Raises LoginInvalid.

    Refused: another algorithm or type; a member of the header that could bring or name the place of a key; equal members.
    """
    parts = token.split(".")
    if len(token) > MOST_TOKEN or len(parts) != 3:
        raise LoginInvalid("the provider's token is no signed token")
    try:
        header, claims = (canonical.decode(jose.from_text(part), limits=_LIMITS) for part in parts[:2])
        signature = jose.from_text(parts[2])
    except BadInput as problem:
        raise LoginInvalid("the provider's token is no signed token") from problem
    if not isinstance(header, dict) or not isinstance(claims, dict) or not header.keys() <= _HEADER:
        raise LoginInvalid("the provider's token has a header that is not accepted here")
    if header.get("alg") != algorithm:
        raise LoginInvalid(f"the provider's token is not signed with {algorithm}, as was agreed")
    if header.get("typ", typ) != typ:
        raise LoginInvalid(f"the provider's token is not of the type `{typ}`")
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def verify_signature(jwk: Mapping[str, object], algorithm: str, signed: bytes, signature: bytes) -> None:
    """Check the signature by a key that `_named` chose for this algorithm. Raises LoginInvalid."""
    try:
        if algorithm == "ES256":
            if len(signature) != 64:
                raise LoginInvalid("its signature does not verify")
            jose.public_key({name: jwk.get(name) for name in jose.JWK_MEMBERS}).verify(signed, signature)
            return
        n, e = (int.from_bytes(jose.from_text(str(jwk.get(name, ""))), "big") for name in ("n", "e"))
        if n.bit_length() not in _RSA_BITS or e not in {3, 65_537}:  # other exponents make a signature dear to check
            raise LoginInvalid("the provider's key is of a size that is not accepted here")
        how = padding.PKCS1v15() if algorithm == "RS256" else padding.PSS(padding.MGF1(SHA256()), 32)
        rsa.RSAPublicNumbers(e, n).public_key().verify(signature, signed, how, SHA256())
    except (InvalidSignature, SignatureInvalid) as problem:
        raise LoginInvalid("its signature does not verify") from problem
    except (ValueError, BadInput) as problem:
        raise LoginInvalid("the provider's key cannot be read") from problem


def check_claims(claims: Mapping[str, object], settings: ProviderSettings, now: float) -> None:
    """Issuer, audience, authorised party and time (OpenID Connect Core 1.0, section 3.1.3.7). Raises LoginInvalid."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != settings.issuer:
        raise LoginInvalid("another provider issued the token")
    if settings.client not in audiences:
        raise LoginInvalid("the token is for another program")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != settings.client:
        raise LoginInvalid("the token was given to another program")
    issued, ends = _time(claims.get("iat")), _time(claims.get("exp"))
    if not issued - SKEW_SECONDS <= now < min(ends, issued + TOKEN_SECONDS) + SKEW_SECONDS:
        raise LoginInvalid("the token is of another time", do="set this machine's clock, then sign in again")


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LoginInvalid("the token says no time")
    return float(value)


def _named(keys: list[Mapping[str, object]], kid: object, algorithm: str) -> list[Mapping[str, object]]:
    kind = "EC" if algorithm == "ES256" else "RSA"
    fit = [
        one
        for one in keys
        if one.get("kty") == kind and one.get("use", "sig") == "sig" and one.get("alg", algorithm) == algorithm
    ]
    return fit if kid is None else [one for one in fit if one.get("kid") == kid]


def _subject(claims: Mapping[str, object]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise LoginInvalid("the token names nobody")
    return subject


def _mark(issuer: str, kind: str, value: str) -> str:
    return sha256(f"paroma/provider/v1\n{issuer}\n{kind}\n{value}".encode("utf-8", "surrogatepass")).hexdigest()


def _object(body: bytes, url: str) -> Mapping[str, object]:
    try:
        found = canonical.decode(body, limits=_LIMITS)
    except ParomaError as problem:
        raise ProviderUnfit(
            f"what the provider answers at `{printable(url)}` cannot be read: {problem.message}",
            do="check `login.issuer`, or ask whoever runs the provider",
        ) from problem
    if not isinstance(found, dict):
        raise ProviderUnfit(f"what the provider answers at `{printable(url)}` is no object", do="check `login.issuer`")
    return found


def _origin(url: str, *, loopback: bool) -> str:
    return loopback_origin(url) if loopback else origin(url)
