"""Canonical JSON (RFC 8785) for everything that is signed or hashed, and a strict reader for everything that comes in.

`json.loads` keeps the last of two equal keys, reads NaN, turns `1e999` into infinity and lets lone surrogates through,
which then fail when they are written. Here each of these is refused, and size, depth and number length are checked
before parsing.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, overload

import msgspec
import rfc8785

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

T = TypeVar("T")
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_EXACT = 2**53  # from here on a float does not hold every integer
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_A_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


class NotCanonical(BadInput):
    """A value has no canonical form: not finite, an integer beyond 2^53, a lone surrogate, an unknown type."""


class NotStrictJson(BadInput):
    """Bytes are no JSON, or JSON that two readers could read differently, or beyond a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused before parsing."""

    most_bytes: int = 1 << 20
    most_depth: int = 32  # arrays and objects inside each other
    most_items: int = 100_000  # values and keys in all
    most_digits: int = 64  # characters of one number


LIMITS = Limits()


def encode(value: object) -> bytes:
    """The one form that RFC 8785 gives to `value`: JSON values, tuples, or a msgspec Struct of them; bytes as base64.

    Raises NotCanonical.
    """
    try:
        return rfc8785.dumps(msgspec.to_builtins(value, builtin_types=None))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, TypeError, RecursionError) as problem:
        raise NotCanonical(
            f"a value has no canonical form: {printable(str(problem), longest=200)}",
            do="use finite numbers, integers within 2^53, whole characters, lists and text keys",
        ) from problem


def digest(value: object) -> str:
    """SHA-256 of the canonical form, in hex. Raises NotCanonical."""
    return hashlib.sha256(encode(value)).hexdigest()


def decode(data: bytes, *, limits: Limits = LIMITS) -> Json:
    """The JSON value in `data` (UTF-8). Raises NotStrictJson.

    Refused: more than the limits; bytes that are not UTF-8; a key twice in one object; NaN, Infinity and numbers too
    large for a float; lone surrogates; anything after the value.
    """
    _check_limits(data, limits)
    try:
        text = data.decode("utf-8")
        value = _READER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    except UnicodeError as problem:
        raise _refusal("it holds bytes or escapes that are no characters") from problem
    except json.JSONDecodeError as problem:
        raise _refusal(f"at byte {problem.pos} it goes wrong: {problem.msg.lower()}") from problem
    except RecursionError as problem:  # only when most_depth was raised beyond what the interpreter holds
        raise _refusal("it is nested too deeply") from problem
    return value  # type: ignore[no-any-return]  # the json module is untyped here


@overload
def decode_as(data: bytes, kind: type[T], *, limits: Limits = ...) -> T: ...
@overload
def decode_as(data: bytes, kind: object, *, limits: Limits = ...) -> Any: ...
def decode_as(data: bytes, kind: Any, *, limits: Limits = LIMITS) -> Any:
    """`decode`, then as a value of type `kind` (a msgspec Struct, say). Raises NotStrictJson."""
    try:
        return msgspec.convert(decode(data, limits=limits), kind)
    except msgspec.ValidationError as problem:
        raise _refusal(f"its content does not fit: {printable(str(problem).lower(), longest=200)}") from problem


def _check_limits(data: bytes, limits: Limits) -> None:
    if len(data) > limits.most_bytes:
        raise _refusal(f"it has {len(data)} bytes, at most {limits.most_bytes} are read")
    bare = _STRING.sub(b"s", data)
    if re.search(rb"[-+.0-9eE]{%d}" % (limits.most_digits + 1), bare):
        raise _refusal(f"it holds a number of more than {limits.most_digits} characters")
    brackets = bare.translate(None, _NOT_A_BRACKET)
    if bare.count(b",") + bare.count(b":") + len(brackets) // 2 + 1 > limits.most_items:
        raise _refusal(f"it holds more than {limits.most_items} values")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.most_depth:
            raise _refusal(f"it is nested deeper than {limits.most_depth} levels")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _refusal(f"the key `{printable(twice)}` stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _refusal(f"the number `{printable(text)}` is too large")
    return number


def _number(text: str) -> int | float:
    # RFC 8785 writes a large float without a point: read as an integer it would have no canonical form any more
    number = int(text)
    return number if abs(number) < _EXACT else _finite(text)


def _no_constant(text: str) -> NoReturn:
    raise _refusal(f"`{text}` is no number")


def _refusal(why: str) -> NotStrictJson:
    return NotStrictJson(
        f"this JSON is refused: {why}", do="send JSON as RFC 8259 and I-JSON (RFC 7493) have it, within the limits"
    )


_READER = json.JSONDecoder(object_pairs_hook=_once, parse_int=_number, parse_float=_finite, parse_constant=_no_constant)
