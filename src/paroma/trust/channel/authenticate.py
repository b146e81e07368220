"""Who sent this request? The one place where token and proof are looked at, for programs and persons alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from paroma.kernel.errors import BadInput, ParomaError, Refused
from paroma.kernel.ids import SiteId
from paroma.trust.identity import dpop
from paroma.trust.identity.nonces import NonceNeeded, Nonces
from paroma.trust.identity.tokens import AccessToken, Role, TokenInvalid, Verifier

MOST_HEADER: Final = 4_096
NONCE_HEADER: Final = "dpop-nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks: a member site or a person, with the key that was proven to be there now."""

    subject: str  # a SiteId or a PersonId
    role: Role
    site: SiteId | None
    thumbprint: str


class Unauthenticated(Refused):
    """The request does not prove who sent it.

    `error` is for the header `WWW-Authenticate` (RFC 9449, sections 7.1 and 9).
    """

    def __init__(self, problem: ParomaError, *, error: str, nonce: str) -> None:
        super().__init__(problem.message, do=problem.do)
        self.error = error
        self.nonce = nonce

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of the answer, whose status is 401 (at the token endpoint 400)."""
        return (("www-authenticate", f'DPoP error="{self.error}", algs="ES256"'), (NONCE_HEADER, self.nonce))


def authenticate(
    method: str, url: str, headers: Sequence[tuple[str, str]], *, now: float, nonces: Nonces, verified: Verifier
) -> Principal:
    """The principal behind a request that carries `Authorization: DPoP token` and `DPoP: proof`.

    url: the program's configured origin and the path, never what the request calls it. headers: all of them, names in
    any case. now: seconds since 1970. Raises Unauthenticated.
    """
    try:
        token = _token(_single(headers, "authorization"))
        proof = _single(headers, "dpop")
    except BadInput as problem:
        raise Unauthenticated(problem, error="invalid_request", nonce=nonces.current()) from problem
    try:
        said: AccessToken = verified.verify(token)
    except (TokenInvalid, BadInput) as problem:
        raise Unauthenticated(problem, error="invalid_token", nonce=nonces.current()) from problem
    try:
        dpop.verify_proof(
            proof, method=method, url=url, token=token, thumbprint=said.thumbprint, now=now, nonces=nonces
        )
    except (Refused, BadInput) as problem:
        raise refused_proof(problem, nonces) from problem
    return Principal(subject=said.subject, role=said.role, site=said.site, thumbprint=said.thumbprint)


def prove(method: str, url: str, headers: Sequence[tuple[str, str]], *, now: float, nonces: Nonces) -> dpop.Proof:
    """The proof of a request that has no token yet (joining, enrolling):

    it shows a key, and not yet whose. Raises Unauthenticated.
    """
    try:
        proof = _single(headers, "dpop")
        return dpop.verify_proof(proof, method=method, url=url, token=None, thumbprint=None, now=now, nonces=nonces)
    except (Refused, BadInput) as problem:
        raise refused_proof(problem, nonces) from problem


def refused_proof(problem: ParomaError, nonces: Nonces) -> Unauthenticated:
    """What is answered to a proof that does not hold, with the nonce for the next one."""
    error = "use_dpop_nonce" if isinstance(problem, NonceNeeded) else "invalid_dpop_proof"
    return Unauthenticated(problem, error=error, nonce=nonces.current())


def _single(headers: Sequence[tuple[str, str]], name: str) -> str:
    found = [value for header, value in headers if header.lower() == name]
    if len(found) != 1:  # two would let a proxy and this program believe different ones
        raise BadInput(f"the header `{name}` is missing or sent twice", do="send a DPoP-bound token and one proof")
    if len(found[0]) > MOST_HEADER:
        raise BadInput(f"the header `{name}` is longer than {MOST_HEADER} characters", do="send a token of this hub's")
    return found[0]


def _token(value: str) -> str:
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "dpop" or not token:
        raise BadInput("the token must come with the scheme `DPoP`", do="send `Authorization: DPoP` and the token")
    return token
