"""The hub's own certificate authority and server certificate, for federations that bring none.

A production hub names its certificate and key in the settings, from whatever CA it has; then nothing here is used. A site
pins what stands in its invitation: the SHA-256 of the CA's public key. Source: RFC 5280.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paroma.kernel.clock import Clock
from paroma.kernel.disk import Disk

CA_DAYS = 3650
SERVER_DAYS = 90
RENEW_BEFORE_DAYS = 30
LOOK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the three files lie: what clients trust, what the server shows, and its key (PKCS#8, 0600)."""

    ca: Path
    certificate: Path
    key: Path


def own_files(folder: Path, *, names: tuple[str, ...], clock: Clock, disk: Disk) -> TlsFiles:
    """The files in `folder`, made or renewed as needed, for a server reached by `names` (DNS names or IP addresses).

    The CA lasts ten years; the server's certificate 90 days, renewed within the last 30, also while the hub runs (`watch`).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = TlsFiles(ca=folder / "ca.pem", certificate=folder / "server.pem", key=folder / "server.key")
    ca_key_file = folder / "ca.key"
    now = datetime.fromtimestamp(clock.now(), UTC)
    if not ca_key_file.exists() or not files.ca.exists():
        ca_key = ec.generate_private_key(ec.SECP256R1())
        disk.replace(ca_key_file, _private(ca_key))
        disk.replace(files.ca, _ca(ca_key, now).public_bytes(serialization.Encoding.PEM), mode=0o644)
        files.certificate.unlink(missing_ok=True)
    if not _good(files, names, now):
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("the CA's key is not an elliptic-curve key")
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server(key, ca, loaded, names, now)
        disk.replace(files.key, _private(key))
        chain = certificate.public_bytes(serialization.Encoding.PEM) + files.ca.read_bytes()
        disk.replace(files.certificate, chain, mode=0o644)
    return files


async def watch(
    renewed: asyncio.Event,
    files: TlsFiles,
    renew: Callable[[], TlsFiles] | None,
    *,
    clock: Clock,
    every: float = LOOK_SECONDS,
) -> None:
    """Set `renewed` whenever the certificate's files are others than before, until cancelled.

    renew: makes them anew where they are about to end; None for files that somebody else renews. every: s between two looks.
    """
    shown = _digest(files)
    while True:
        await clock.sleep(every)
        if renew is not None:
            renew()
        now = _digest(files)
        if now not in {shown, None}:
            shown = now
            renewed.set()


def _digest(files: TlsFiles) -> bytes | None:
    """Of certificate and key together; None while they do not fit: somebody is just replacing them."""
    try:
        certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
        public = serialization.load_pem_private_key(key, password=None).public_key()
        if x509.load_pem_x509_certificate(certificate).public_key() != public:
            return None
    except (OSError, ValueError):
        return None
    return hashlib.sha256(certificate + key).digest()


def _good(files: TlsFiles, names: tuple[str, ...], now: datetime) -> bool:
    if not files.certificate.exists() or not files.key.exists():
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = {*alternative.get_values_for_type(x509.DNSName)}
    known |= {str(a) for a in alternative.get_values_for_type(x509.IPAddress)}
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    pair = key.public_key() == certificate.public_key()  # a crash between the two writes leaves halves of two pairs
    return pair and set(names) <= known and certificate.not_valid_after_utc - now > timedelta(days=RENEW_BEFORE_DAYS)


def _ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Paroma federation CA")])
    return (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    return (
        _builder(name, ca.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of members differ a little
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
