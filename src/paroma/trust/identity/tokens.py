"""Access tokens: a minute of trust, bound to one key.

ES256 JWTs of the form of RFC 9068 with `cnf.jkt` (RFC 9449, section 6). Each carries the revocation epoch in which it
was issued; whenever somebody is revoked the epoch grows, and every older token is refused at once, whoever holds it:
the others get a new one within a request, the revoked one does not.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, get_args

from paroma.kernel.clock import Clock
from paroma.kernel.errors import Refused
from paroma.kernel.ids import SiteId
from paroma.kernel.randomness import Randomness
from paroma.trust.identity import jose
from paroma.trust.keys.signing import PublicKey, SignatureInvalid, SigningKey

TYP: Final = "at+jwt"
LIFE_SECONDS: Final = 60
MOST_CACHED: Final = 4_096

Role = Literal["site", "scientist", "officer", "desk", "committee", "operator", "auditor"]
ROLES: Final[frozenset[str]] = frozenset(get_args(Role))


class TokenInvalid(Refused):
    """The token is not ours, not for us, or its time has passed."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the access token does not hold: {why}", do="ask for a new token")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What a verified token says."""

    subject: str  # a SiteId or a PersonId
    role: Role
    site: SiteId | None  # the site that the subject is, or belongs to
    thumbprint: str  # of the only key whose proofs go with it
    epoch: int  # revocation epoch in which it was issued
    ends: int  # seconds since 1970


def issue(
    key: SigningKey,
    *,
    issuer: str,
    audience: str,
    subject: str,
    role: Role,
    site: SiteId | None,
    thumbprint: str,
    epoch: int,
    now: float,
    randomness: Randomness,
) -> str:
    """A token that ends `LIFE_SECONDS` after `now` (seconds since 1970). issuer, audience: origins of programs."""
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "role": role,
        "cnf": {"jkt": thumbprint},
        "epoch": epoch,
        "iat": int(now),
        "exp": int(now) + LIFE_SECONDS,
        "jti": jose.to_text(randomness.take(12)),
    }
    if site is not None:
        claims["site"] = site
    return jose.write(TYP, claims, key)


def verify(token: str, key: PublicKey, *, issuer: str, audience: str, epoch: int, now: float) -> AccessToken:
    """Read `token`, issued by `issuer` with `key`, for `audience`, not before revocation epoch `epoch`.

    Raises TokenInvalid, TokenUnreadable.
    """
    jws = jose.read(token, TYP)
    try:
        jws.signed_by(key)
    except SignatureInvalid as problem:
        raise TokenInvalid("its signature does not verify") from problem
    if jws.text("iss") != issuer:
        raise TokenInvalid("another party issued it")
    if jws.text("aud") != audience:
        raise TokenInvalid("it is for another party")
    confirmation = jws.claims.get("cnf")
    jkt = confirmation.get("jkt") if isinstance(confirmation, dict) else None
    role = jws.text("role")
    if not isinstance(jkt, str) or role not in ROLES:
        raise jose.TokenUnreadable("`cnf.jkt` or `role` is missing or not known")
    found = AccessToken(
        subject=jws.text("sub"),
        role=role,  # type: ignore[arg-type]  # one of ROLES, as was just checked
        site=SiteId(jws.text("site")) if "site" in jws.claims else None,
        thumbprint=jkt,
        epoch=jws.number("epoch"),
        ends=jws.number("exp"),
    )
    if jws.number("iat") > now + LIFE_SECONDS or found.ends > now + 2 * LIFE_SECONDS:
        raise TokenInvalid("it is from the future")
    _still_good(found, epoch=epoch, now=now)
    return found


def _still_good(token: AccessToken, *, epoch: int, now: float) -> None:
    if now >= token.ends:
        raise TokenInvalid("its time has passed")
    if token.epoch < epoch:
        raise TokenInvalid("somebody was revoked since it was issued")


class Verifier:
    """Verifies tokens of one issuer, and remembers those it verified while the revocation epoch stands.

    A signature costs 65 us, the memory 2. `epoch` is moved by whoever learns of a revocation; it only grows.
    """

    def __init__(self, key: PublicKey, *, issuer: str, audience: str, epoch: int, clock: Clock) -> None:
        self.issuer = issuer
        self.audience = audience
        self._key = key
        self._epoch = epoch
        self._clock = clock
        self._known: dict[bytes, AccessToken] = {}

    @property
    def epoch(self) -> int:
        """The revocation epoch: tokens of earlier ones are refused."""
        return self._epoch

    def revoked(self, epoch: int) -> None:
        """Somebody was revoked:

        from now on only tokens of `epoch` and later are good. An older number changes nothing.
        """
        if epoch > self._epoch:
            self._epoch = epoch
            self._known.clear()

    def verify(self, token: str) -> AccessToken:
        """As `verify`. Raises TokenInvalid, TokenUnreadable."""
        now = self._clock.now()
        mark = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = self._known.get(mark)
        if found is None:
            found = verify(token, self._key, issuer=self.issuer, audience=self.audience, epoch=self._epoch, now=now)
            if len(self._known) >= MOST_CACHED:
                self._known.clear()  # rare, cheap to fill again, and nobody can keep another's token out
            self._known[mark] = found
            return found
        _still_good(found, epoch=self._epoch, now=now)
        return found
