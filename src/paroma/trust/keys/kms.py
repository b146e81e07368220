"""Keys in AWS KMS, or in a service that speaks its protocol: ECDSA on P-256 to sign, the service's own AES to wrap.

Credentials, the service's address and its certificates are found as AWS's own programs find them (`AWS_PROFILE`,
`AWS_ENDPOINT_URL_KMS`, `AWS_CA_BUNDLE`, ...). A secret that is wrapped and a message of at most 4,096 bytes that is signed
go to the service; longer ones go as their SHA-256.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from paroma.kernel.errors import ParomaError
from paroma.trust.keys.errors import (
    KeyAway,
    KeyGone,
    KeyLibraryMissing,
    KeyPinWrong,
    KeyThere,
    KeyUnfit,
    KeyUriInvalid,
    NotWrappedByThis,
)
from paroma.trust.keys.names import KeyName
from paroma.trust.keys.signing import PublicKey, SignatureInvalid, digest, raw
from paroma.trust.keys.wrapping import fit

MOST_RAW: Final = 4096  # bytes of a message that the service hashes itself (API reference, Sign)
DAYS: Final = 7  # the fewest that the service lets pass before it destroys (API reference, ScheduleKeyDeletion)

_SIGN: Final = {"KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256"}
_WRAP: Final = {"KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}
_GONE: Final = frozenset({"NotFoundException", "KMSInvalidStateException", "DisabledException"})
_NO: Final = frozenset(
    {"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"}
)


class _Held:
    """One key of the service. boto3 makes its clients at run time, so they are untyped."""

    def __init__(self, name: KeyName, kind: dict[str, str], *, make: bool) -> None:
        self.name = name
        self._client = _client(name)
        try:
            if make:
                self._make(kind)
            self.id = self._find(kind)
        except BaseException:
            self.close()
            raise

    def _find(self, kind: dict[str, str]) -> str:
        told = self.call(lambda kms: kms.describe_key(KeyId=self.name.path))["KeyMetadata"]
        if told["KeyState"] != "Enabled":
            raise _gone(self.name, f"is `{told['KeyState']}`")
        if any(told.get(member) != value for member, value in kind.items()):
            use = "an ES256 key (`ECC_NIST_P256`, `SIGN_VERIFY`)" if kind is _SIGN else "a symmetric key"
            raise KeyUnfit(f"the KMS key `{self.name.path}` is not {use}", do="make one with `paroma key make`")
        return str(told["KeyId"])

    def call(self, act: Callable[[Any], Any]) -> Any:
        """What the service answers. Raises KeyAway, KeyGone, KeyPinWrong, KeyThere, NotWrappedByThis."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            return act(self._client)
        except (NoCredentialsError, PartialCredentialsError) as problem:
            raise KeyPinWrong(
                "there are no credentials for the KMS",
                do="set `AWS_PROFILE`, or what else your service wants, where the program runs",
            ) from problem
        except ClientError as problem:
            raise self._trouble(str(problem.response.get("Error", {}).get("Code", ""))) from problem
        except BotoCoreError as problem:
            raise KeyAway(
                f"the KMS of `{self.name.region}` cannot be reached: `{type(problem).__name__}`",
                do="look at the line, the proxy and `AWS_ENDPOINT_URL_KMS`; repeating is safe",
            ) from problem

    def destroy(self) -> None:
        """Unusable at once, destroyed after seven days."""
        self.call(lambda kms: kms.schedule_key_deletion(KeyId=self.id, PendingWindowInDays=DAYS))

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _make(self, kind: dict[str, str]) -> None:
        before, found, alias = self.name.path.partition("alias/")
        if not found or not before:
            raise KeyUriInvalid(
                "the KMS chooses the ids of keys itself, so a new key is made under an alias",
                do="end the name with `alias/paroma-site` or another alias that is free",
            )
        if self.call(lambda kms: _taken(kms, self.name.path)):
            raise _there(self.name)
        made = self.call(lambda kms: kms.create_key(Description="paroma", **kind))["KeyMetadata"]["KeyId"]
        try:
            self.call(lambda kms: kms.create_alias(AliasName=f"alias/{alias}", TargetKeyId=made))
        except ParomaError:
            self.call(
                lambda kms: kms.schedule_key_deletion(KeyId=made, PendingWindowInDays=DAYS)
            )  # nobody would find it
            raise

    def _trouble(self, code: str) -> ParomaError:
        if code in _GONE:
            return _gone(self.name, "is not there, or is disabled")
        if code in _NO:
            return KeyPinWrong(
                f"the KMS refuses these credentials for `{self.name.path}`: `{code}`",
                do="let them describe, use and, to destroy, schedule the deletion of this key",
            )
        if code == "AlreadyExistsException":
            return _there(self.name)
        if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
            return NotWrappedByThis(self.name.text)
        return KeyAway(f"the KMS does not do it: `{code}`", do="repeat later; look at the service's own log")


def _taken(kms: Any, arn: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        kms.describe_key(KeyId=arn)
    except ClientError as problem:
        if problem.response.get("Error", {}).get("Code") == "NotFoundException":
            return False
        raise
    return True


def _client(name: KeyName) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as problem:
        raise KeyLibraryMissing(
            "keys in a KMS need a package that is not installed", do="install `paroma[kms]`"
        ) from problem
    calm = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2, "mode": "standard"})
    try:
        return boto3.client("kms", region_name=name.region, config=calm)
    except (BotoCoreError, ValueError) as problem:
        raise KeyAway(
            f"the settings for AWS cannot be used: {problem}", do="correct `AWS_PROFILE` and `AWS_ENDPOINT_URL_KMS`"
        ) from problem


def _gone(name: KeyName, why: str) -> KeyGone:
    return KeyGone(
        f"the KMS key `{name.path}` {why}",
        do="name another key, or make one with `paroma key make`; "
        f"a destroyed one can be called back for {DAYS} days, at the service",
    )


def _there(name: KeyName) -> KeyThere:
    return KeyThere(f"the KMS has a key under `{name.path}` already", do="choose another alias")


class KmsSigningKey:
    """An ES256 key in the service."""

    def __init__(self, name: KeyName, *, make: bool = False) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit, KeyUriInvalid."""
        self._held, self.uri = _Held(name, _SIGN, make=make), name.text
        told = load_der_public_key(self._held.call(lambda kms: kms.get_public_key(KeyId=self._held.id))["PublicKey"])
        if not isinstance(told, ec.EllipticCurvePublicKey):
            raise KeyUnfit(f"the KMS key `{name.path}` is not on P-256", do="make one with `paroma key make`")
        self.public = PublicKey.from_point(told.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half."""
        return self.public.thumbprint

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return self.public.jwk

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`, r and s. Raises KeyAway, KeyGone, KeyPinWrong."""
        kind: Literal["RAW", "DIGEST"] = "RAW" if 0 < len(data) <= MOST_RAW else "DIGEST"
        message = data if kind == "RAW" else digest(data)
        answer = self._held.call(
            lambda kms: kms.sign(
                KeyId=self._held.id, Message=message, MessageType=kind, SigningAlgorithm="ECDSA_SHA_256"
            )
        )
        signature = raw(answer["Signature"])
        try:
            self.public.verify(data, signature)
        except SignatureInvalid as problem:
            raise KeyAway(
                f"the KMS signed with another key than `{self._held.name.path}`, or over other bytes",
                do="look at the service",
            ) from problem
        return signature

    def destroy(self) -> None:
        """Unusable at once; gone for good after seven days, within which the service's operator can call it back."""
        self._held.destroy()

    def close(self) -> None:
        """Close its connections."""
        self._held.close()


class KmsWrappingKey:
    """A symmetric key in the service."""

    def __init__(self, name: KeyName, *, make: bool = False) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit, KeyUriInvalid."""
        self._held, self.uri = _Held(name, _WRAP, make=make), name.text
        ident = self._held.id.encode()
        self._mark = bytes([len(ident)]) + ident

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """The key's id and its length, then the service's own sealed form."""
        answer = self._held.call(
            lambda kms: kms.encrypt(
                KeyId=self._held.id, Plaintext=fit(secret), EncryptionContext={"purpose": purpose.hex()}
            )
        )
        return self._mark + bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret. Raises NotWrappedByThis."""
        sealed = wrapped.removeprefix(self._mark)
        if sealed == wrapped or not 0 < len(sealed) <= 6144:  # the most that the service takes
            raise NotWrappedByThis(self.uri)  # said here, as services do not agree on what to answer
        answer = self._held.call(
            lambda kms: kms.decrypt(
                KeyId=self._held.id, CiphertextBlob=sealed, EncryptionContext={"purpose": purpose.hex()}
            )
        )
        return bytes(answer["Plaintext"])

    def destroy(self) -> None:
        """Unusable at once; gone for good after seven days, within which the service's operator can call it back."""
        self._held.destroy()

    def close(self) -> None:
        """Close its connections."""
        self._held.close()
