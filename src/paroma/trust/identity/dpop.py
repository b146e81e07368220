"""Proofs of possession: a request is signed by the key that its token is bound to.

RFC 9449 with its names. `read_proof` checks all that stands in the proof itself (section 4.3, points 1 to 9 and 11,
12); `verify_proof` adds the nonce and the memory of what was shown (points 10 and the replay of section 11.1), and is
the one to use.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from paroma.kernel.errors import Refused
from paroma.kernel.randomness import Randomness
from paroma.trust.identity import jose
from paroma.trust.identity.nonces import Nonces
from paroma.trust.keys.signing import SignatureInvalid, SigningKey

TYP: Final = "dpop+jwt"
SKEW_SECONDS: Final = 60  # clocks further apart than this are refused (and so is a proof older than this)
_PORTS: Final = {"https": 443, "http": 80}
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ProofInvalid(Refused):
    """The proof does not belong to this request, this token or this time."""

    def __init__(self, why: str, *, do: str = "make a fresh proof for exactly this request") -> None:
        super().__init__(f"the proof of possession does not hold: {why}", do=do)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof says, after its signature held."""

    thumbprint: str  # of the key that signed it (RFC 7638)
    jti: str
    iat: int  # seconds since 1970
    nonce: str | None


def make_proof(
    key: SigningKey, method: str, url: str, *, nonce: str | None, token: str | None, now: float, randomness: Randomness
) -> str:
    """A proof for one request:

    `method` and `url` as sent, `now` in seconds since 1970, bound to `token` where there is one.
    """
    claims: dict[str, object] = {
        "jti": jose.to_text(randomness.take(16)),
        "htm": method,
        "htu": target(url),
        "iat": int(now),
    }
    if nonce is not None:
        claims["nonce"] = nonce
    if token is not None:
        claims["ath"] = token_hash(token)
    return jose.write(TYP, claims, key, jwk=True)


def verify_proof(
    proof: str, *, method: str, url: str, token: str | None, thumbprint: str | None, now: float, nonces: Nonces
) -> Proof:
    """Check that `proof` is for this request and was never shown before.

    url: the address under which the program is known (its configured origin and the path), never what the request
    says. token: the access token of the request. thumbprint: of the key that must have signed, where it is known
    already. Raises ProofInvalid, TokenUnreadable, NonceNeeded, Replayed.
    """
    found = read_proof(proof, method=method, url=url, token=token, now=now)
    if thumbprint is not None and not hmac.compare_digest(found.thumbprint, thumbprint):
        raise ProofInvalid(
            "it is signed by another key than the token is bound to", do="sign with the key of the token"
        )
    nonces.spend(found.nonce, "proof", found.thumbprint, found.jti)  # last: only a proof that holds takes up memory
    return found


def read_proof(proof: str, *, method: str, url: str, token: str | None, now: float) -> Proof:
    """All checks of a proof but nonce and replay. Raises ProofInvalid, TokenUnreadable."""
    jws = jose.read(proof, TYP, jwk=True)
    key = jose.header_key(jws)
    try:
        jws.signed_by(key)
    except SignatureInvalid as problem:
        raise ProofInvalid("its signature does not verify") from problem
    if jws.text("htm") != method:
        raise ProofInvalid("it is for another method")
    if target(jws.text("htu", longest=2_048)) != target(url):
        raise ProofInvalid("it is for another address")
    iat = jws.number("iat")
    if abs(now - iat) > SKEW_SECONDS:
        raise ProofInvalid(
            f"it was made more than {SKEW_SECONDS} s from now", do="set this machine's clock, then repeat"
        )
    if (token is None) != ("ath" not in jws.claims):
        raise ProofInvalid("it is bound to a token where none was sent, or to none where one was sent")
    if token is not None and not hmac.compare_digest(jws.text("ath"), token_hash(token)):
        raise ProofInvalid("it is bound to another token")
    nonce = jws.text("nonce") if "nonce" in jws.claims else None
    return Proof(thumbprint=key.thumbprint, jti=jws.text("jti", longest=128), iat=iat, nonce=nonce)


def token_hash(token: str) -> str:
    """`ath`: base64url of the SHA-256 of the access token (RFC 9449, section 4.2)."""
    return jose.to_text(hashlib.sha256(token.encode("ascii", "replace")).digest())


def target(url: str) -> str:
    """`url` without query and fragment, in the normal form of RFC 3986, sections 6.2.2 and 6.2.3.

    Raises ProofInvalid.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise ProofInvalid("its address cannot be read") from problem
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not host or "@" in parts.netloc or not url.isascii() or "\\" in url:
        raise ProofInvalid("its address must be an http(s) URL without a user name")
    place = f"[{host}]" if ":" in host else host
    where = place if port in {None, _PORTS[scheme]} else f"{place}:{port}"
    return f"{scheme}://{where}{_path(parts.path)}"


def _path(path: str) -> str:
    def plain(escape: re.Match[str]) -> str:
        character = chr(int(escape[1], 16))
        return character if character in _UNRESERVED else f"%{escape[1].upper()}"

    kept: list[str] = []
    segments = _ESCAPE.sub(plain, path).split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
