"""First contact: the hub's certificate authority, believed because of the fingerprint in the invitation.

The fingerprint is that of the authority's public key, so that a renewed certificate with the same key still fits.
"""

import hashlib
import hmac
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.wire.network import HttpRequest, Network

PATH: Final = "/federation/authority.pem"
MOST_BYTES: Final = 16_384
WAIT_SECONDS: Final = 15.0


class AuthorityWrong(Refused):
    """Somebody other than the hub that invited answers at its address (or a proxy opens the hospital's TLS)."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"what answers at the address of the invitation is not the hub that made it: {why}",
            do="check that no proxy opens TLS to this address, then ask the hub's operator for a new invitation",
        )


def fingerprint(authority: bytes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo of the certificate in `authority` (PEM), in hex. Raises BadInput."""
    return _fingerprint(_certificate(authority))


async def fetch_ca(network: Network, url: str, expected: str) -> bytes:
    """The certificate (PEM) of the authority of the hub at `url`, whose fingerprint must be `expected`.

    network: one that checks no certificate yet (`trusting_nobody_yet`). The request says nothing about the site, and
    nothing else is sent until the reply was compared. Raises AuthorityWrong, PeerUnavailable.
    """
    reply = await network.send(HttpRequest(method="GET", url=url + PATH, timeout=WAIT_SECONDS))
    if reply.status != 200:
        raise AuthorityWrong(f"it answers {reply.status}")
    try:
        certificate = _certificate(reply.body)
    except BadInput as problem:
        raise AuthorityWrong("it sends no certificate") from problem
    if not hmac.compare_digest(_fingerprint(certificate), expected):
        raise AuthorityWrong("its key is another one")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        if certificate.issuer == certificate.subject:
            certificate.verify_directly_issued_by(certificate)  # a trust anchor's own text is checked by nobody later
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature) as problem:
        raise AuthorityWrong("its certificate is not one of an authority") from problem
    if not is_authority:
        raise AuthorityWrong("its certificate is not one of an authority")
    return certificate.public_bytes(Encoding.PEM)


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        if len(pem) > MOST_BYTES:
            raise ValueError("too long")  # noqa: TRY301  # one place says what is wrong
        return x509.load_pem_x509_certificate(pem)
    except ValueError as problem:
        raise BadInput(
            "this is no certificate in PEM form", do="give the file that begins with `-----BEGIN`"
        ) from problem


def _fingerprint(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()
