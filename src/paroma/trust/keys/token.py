"""Keys in a PKCS#11 token (OASIS PKCS #11 v3.0): ECDSA on P-256 to sign, AES-256 in GCM to wrap; neither leaves the token.

A token that was pulled and put back is used again without a restart: an operation whose session died opens another one, once.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar

from paroma.kernel.randomness import Randomness
from paroma.trust.keys.errors import (
    KeyAway,
    KeyGone,
    KeyLibraryMissing,
    KeyPinWrong,
    KeyThere,
    KeyUnfit,
    NotWrappedByThis,
)
from paroma.trust.keys.names import KeyName, pin_of
from paroma.trust.keys.signing import PublicKey, SignatureInvalid, digest
from paroma.trust.keys.wrapping import NONCE, fit

T = TypeVar("T")
Use = Literal["sign", "wrap"]

# A module is one for the whole process and python-pkcs11 0.10 initialises it with C_Initialize(NULL): for one thread at a time.
_ONE_AT_A_TIME: Final = threading.RLock()
_STARTS: Final[dict[str, int]] = {}
"""How often each module was started again, as handles from before mean nothing, or something else, afterwards."""


class _Held:
    """One key of a token and the session that it is used through. pkcs11's own objects are untyped here."""

    def __init__(self, name: KeyName, environ: Mapping[str, str], use: Use, *, make: bool) -> None:
        self.name, self._environ, self._use = name, environ, use
        self._session: Any = None
        self._key: Any = None
        self._start = 0
        self._refused: str | None = None  # a PIN that is not tried again: a caller that repeats would lock the token
        with _ONE_AT_A_TIME:
            self._open(make=make)

    def run(self, act: Callable[[Any], T]) -> T:
        """`act` on the key; once more in a new session where the old one died. Raises KeyAway, KeyGone, KeyPinWrong."""
        import pkcs11

        dead = (
            pkcs11.SessionHandleInvalid,
            pkcs11.SessionClosed,
            pkcs11.ObjectHandleInvalid,
            pkcs11.KeyHandleInvalid,
            pkcs11.UserNotLoggedIn,
            pkcs11.DeviceRemoved,
            pkcs11.TokenNotPresent,
            pkcs11.DeviceError,
        )
        with _ONE_AT_A_TIME:
            if self._key is None or self._start != self._starts():
                self._open(make=False)
            try:
                return act(self._key)
            except dead:
                self.close()
                self._open(make=False)
                try:
                    return act(self._key)
                except pkcs11.PKCS11Error as problem:
                    raise self._trouble(problem) from problem

    def public(self) -> PublicKey:
        """The public half of the pair."""
        import pkcs11

        with _ONE_AT_A_TIME:
            try:
                half = self._session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=self.name.need("object"))
                # CKA_EC_POINT is the point in a DER OCTET STRING (PKCS #11, 6.3.3): 0x04, its length 65, then the point
                return PublicKey.from_point(bytes(half[pkcs11.Attribute.EC_POINT])[-65:])
            except pkcs11.PKCS11Error as problem:
                raise self._trouble(problem) from problem

    def destroy(self) -> None:
        """All objects of this name and use leave the token."""
        import pkcs11

        with _ONE_AT_A_TIME:
            self.run(lambda key: key[pkcs11.Attribute.KEY_TYPE])  # opens another session where the old one died
            try:
                for kind in self._kinds():
                    for one in list(self._session.get_objects(self._wanted(kind))):
                        one.destroy()
            except pkcs11.PKCS11Error as problem:
                raise self._trouble(problem) from problem
            self.close()

    def close(self) -> None:
        """End the session. Others of this process on the same token are logged out with it, and log in again by themselves."""
        with _ONE_AT_A_TIME:
            session, self._session, self._key = self._session, None, None
            if session is not None and self._start == self._starts():
                with suppress(RuntimeError):  # the token is away: there is nothing left to close
                    session.close()

    def _open(self, *, make: bool) -> None:
        pkcs11 = library(self.name)
        try:
            self._session = self._log_in(self._token())
            self._key = self._find(make=make)
        except pkcs11.PKCS11Error as problem:
            self.close()
            raise self._trouble(problem) from problem
        except BaseException:
            self.close()
            raise

    def _find(self, *, make: bool) -> Any:
        import pkcs11

        wanted, label = self._wanted(self._kinds()[0]), self.name.need("object")
        found = list(self._session.get_objects(wanted))
        if make:
            if found:
                raise KeyThere(
                    f"the token holds a key named `{label}` already",
                    do="choose another `object`, or destroy that key first: `paroma key destroy`",
                )
            self._make()
            found = list(self._session.get_objects(wanted))
        if len(found) != 1:
            raise self._absent(len(found))
        kind, what = (pkcs11.KeyType.EC, "on P-256") if self._use == "sign" else (pkcs11.KeyType.AES, "AES")
        if found[0][pkcs11.Attribute.KEY_TYPE] != kind:
            raise KeyUnfit(f"the key `{label}` in the token is not {what}", do="make one with `paroma key make`")
        return found[0]

    def _starts(self) -> int:
        return _STARTS.get(self.name.need("module-path"), 0)

    def _token(self) -> Any:
        pkcs11 = library(self.name)
        path = self.name.need("module-path")
        module = pkcs11.lib(path)
        try:
            found = self._tokens(module)
        except pkcs11.PKCS11Error:
            found = []
        if not found:  # some modules see what was plugged in, or came back, only when they start
            module.reinitialize()
            _STARTS[path] = self._starts() + 1
            found = self._tokens(module)
        self._start = self._starts()
        if len(found) == 1:
            return found[0]
        what = f"token `{self.name.members.get('token') or self.name.members.get('serial')}`"
        if not found:
            raise KeyAway(
                f"the {what} is not there", do="plug it in or start its service, and look with `pkcs11-tool -L`"
            )
        raise KeyAway(f"{len(found)} tokens are named like the {what}", do="add its `serial` to the key's name")

    def _tokens(self, module: Any) -> list[Any]:
        serial = self.name.members.get("serial")
        return list(
            module.get_tokens(
                token_label=self.name.members.get("token"), token_serial=serial.encode() if serial else None
            )
        )

    def _log_in(self, token: Any) -> Any:
        pkcs11 = library(self.name)
        pin = pin_of(self.name, self._environ)
        if pin is not None and pin == self._refused:
            raise self._trouble(pkcs11.PinIncorrect())
        try:
            return token.open(rw=True, user_pin=pin)
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
            self._refused = pin
            raise
        except pkcs11.UserAlreadyLoggedIn:  # a login is the process's, not the session's (PKCS #11, 5.6)
            return token.open(rw=True)

    def _kinds(self) -> tuple[Any, ...]:
        from pkcs11 import ObjectClass

        pair = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        return pair if self._use == "sign" else (ObjectClass.SECRET_KEY,)

    def _wanted(self, kind: Any) -> dict[Any, Any]:
        from pkcs11 import Attribute

        return {Attribute.CLASS: kind, Attribute.LABEL: self.name.need("object")}

    def _make(self) -> None:
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        label = self.name.need("object")
        kept = {pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True}
        if self._use == "wrap":
            self._session.generate_key(
                pkcs11.KeyType.AES,
                256,
                label=label,
                id=label.encode(),
                store=True,
                template=kept,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
            )
            return
        curve = self._session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        curve.generate_keypair(
            label=label,
            id=label.encode(),
            store=True,
            private_template=kept,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        )

    def _absent(self, count: int) -> KeyGone | KeyUnfit:
        label = self.name.need("object")
        if count:
            return KeyUnfit(f"the token holds {count} keys named `{label}`", do="rename all but one in the token")
        return KeyGone(
            f"the token holds no key named `{label}` that can {self._use}: it was destroyed or never made, "
            "or it shows only after a login",
            do="name another key, or make it with `paroma key make`; give `pin-source` where it was left out",
        )

    def _trouble(self, problem: Exception) -> Exception:
        import pkcs11

        if isinstance(problem, pkcs11.PinIncorrect | pkcs11.PinInvalid | pkcs11.PinLenRange):
            return KeyPinWrong(
                "the token refuses the PIN; a few more wrong ones lock it",
                do="correct what `pin-source` leads to before anything tries again",
            )
        if isinstance(problem, pkcs11.PinLocked):
            return KeyPinWrong(
                "the token is locked after too many wrong PINs", do="have its security officer unlock it"
            )
        if isinstance(problem, pkcs11.NoSuchKey):
            return self._absent(0)
        if isinstance(problem, pkcs11.UserNotLoggedIn):
            return KeyPinWrong(
                "the token wants a PIN", do="add `&pin-source=file:/path` to the key's name, with the PIN in that file"
            )
        return KeyAway(
            f"the token does not do it: `{type(problem).__name__}`",
            do="look whether it is plugged in, whole and not full: `pkcs11-tool -L`; repeating is safe",
        )


def library(name: KeyName) -> Any:
    """The package `pkcs11`, with the name's module loaded. Raises KeyLibraryMissing."""
    try:
        import pkcs11
    except ImportError as problem:
        raise KeyLibraryMissing(
            "keys in a PKCS#11 token need a package that is not installed", do="install `paroma[hsm]`"
        ) from problem
    path = name.need("module-path")
    try:
        pkcs11.lib(path)
    except pkcs11.PKCS11Error as problem:
        raise KeyLibraryMissing(
            f"the token's module `{path}` cannot be loaded",
            do="install it (Debian has `softhsm2` and `opensc-pkcs11`; others come with the token), and correct `module-path`",
        ) from problem
    return pkcs11


class TokenSigningKey:
    """An ES256 key in a token."""

    def __init__(self, name: KeyName, environ: Mapping[str, str], *, make: bool = False) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit."""
        self._held = _Held(name, environ, "sign", make=make)
        self.uri, self.public = name.text, self._held.public()

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint of the public half."""
        return self.public.thumbprint

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JWK."""
        return self.public.jwk

    def sign(self, data: bytes) -> bytes:
        """ES256 signature over `data`, r and s; its random number is the token's. Raises KeyAway, KeyGone, KeyPinWrong."""
        from pkcs11 import Mechanism

        def act(key: Any) -> bytes:
            return bytes(key.sign(digest(data), mechanism=Mechanism.ECDSA))

        signature = self._held.run(act)
        try:
            self.public.verify(data, signature)
        except SignatureInvalid as problem:  # another key of this name was put there meanwhile
            raise KeyAway(
                "the token signed with another key than before", do="look at the token, then start again"
            ) from problem
        return signature

    def destroy(self) -> None:
        """Both halves leave the token."""
        self._held.destroy()

    def close(self) -> None:
        """End the session."""
        self._held.close()


class TokenWrappingKey:
    """An AES-256 key in a token."""

    def __init__(
        self, name: KeyName, environ: Mapping[str, str], randomness: Randomness, *, make: bool = False
    ) -> None:
        """Raises KeyLibraryMissing, KeyAway, KeyPinWrong, KeyGone, KeyThere, KeyUnfit."""
        self._held, self._randomness, self.uri = _Held(name, environ, "wrap", make=make), randomness, name.text

    def wrap(self, secret: bytes, purpose: bytes) -> bytes:
        """Nonce and sealed bytes."""
        from pkcs11 import GCMParams, Mechanism

        secret, nonce = fit(secret), self._randomness.take(NONCE)
        gcm = GCMParams(nonce, purpose, 128)

        def act(key: Any) -> bytes:
            return bytes(key.encrypt(secret, mechanism=Mechanism.AES_GCM, mechanism_param=gcm))

        return nonce + self._held.run(act)

    def unwrap(self, wrapped: bytes, purpose: bytes) -> bytes:
        """The secret. Raises NotWrappedByThis."""
        import pkcs11
        from pkcs11 import GCMParams, Mechanism

        if len(wrapped) <= NONCE + 16:
            raise NotWrappedByThis(self.uri)
        gcm = GCMParams(wrapped[:NONCE], purpose, 128)

        def act(key: Any) -> bytes:
            try:
                return bytes(key.decrypt(wrapped[NONCE:], mechanism=Mechanism.AES_GCM, mechanism_param=gcm))
            except (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange, pkcs11.GeneralError) as problem:
                raise NotWrappedByThis(self.uri) from problem  # SoftHSM says CKR_GENERAL_ERROR for a wrong tag

        return self._held.run(act)

    def destroy(self) -> None:
        """The key leaves the token."""
        self._held.destroy()

    def close(self) -> None:
        """End the session."""
        self._held.close()
