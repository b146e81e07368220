"""What both programs share at their edge: errors as problem+json, bodies with a limit, static files, headers on every reply.

`program` puts them around the routes of a hub or a site.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paroma.kernel import canonical
from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.trust.channel.authenticate import Unauthenticated
from paroma.web.kit.pages import SECURITY_HEADERS, STATIC_TYPES, static_file

T = TypeVar("T")
MOST_BODY: Final = 1 << 20  # bytes
LONGEST_NUMBER: Final = 18  # digits: what fits into 64 bits


class NotHere(Refused):
    """There is nothing at this address, or nothing that this person may see: both look the same."""

    def __init__(self) -> None:
        super().__init__("there is nothing here", do="check the address")


async def body_of(request: Request, most: int = MOST_BODY) -> bytes:
    """The body, at most `most` bytes. Raises BadInput before more is read."""
    fits = count_of(request.headers.get("content-length", "0"), most)
    read = bytearray()
    if fits is not None:
        async for piece in request.stream():
            read += piece
            if len(read) > most:
                break
    if len(read) > most or fits is None:
        raise BadInput(f"the request is longer than {most} bytes", do="send less at once")
    return bytes(read)


def count_of(text: str, most: int) -> int | None:
    """The whole number from 0 to `most` that `text` writes in plain digits, or None."""
    plain = len(text) <= LONGEST_NUMBER and text.isascii() and text.isdigit()  # "²" is a digit, and no number
    return int(text) if plain and int(text) <= most else None


async def json_of(request: Request, kind: type[T], most: int = MOST_BODY) -> T:
    """The body as a value of `kind`, read strictly. Raises BadInput."""
    return canonical.decode_as(await body_of(request, most), kind)


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A reply in JSON."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def page(html: str, status: int = 200) -> Response:
    """A page."""
    return Response(html, status, media_type="text/html; charset=utf-8")


async def static(request: Request) -> Response:
    """GET /static/{name}"""
    name = request.path_params["name"]
    if name not in STATIC_TYPES:
        raise NotHere
    return Response(static_file(name), headers={"content-type": STATIC_TYPES[name], "cache-control": "max-age=3600"})


async def problem(_request: Request, error: Exception) -> Response:
    """The one place where an error becomes a reply (RFC 9457)."""
    if isinstance(error, Unauthenticated):
        return _problem(error, 401, dict(error.headers()), {"error": error.error})
    if isinstance(error, NotHere):
        return _problem(error, 404)
    if isinstance(error, Unavailable):
        return _problem(error, 503)
    if isinstance(error, BadInput):
        return _problem(error, 400)
    if isinstance(error, HTTPException):
        return _problem(NotHere(), error.status_code)
    if isinstance(error, ParomaError):
        return _problem(error, 403)
    raise error


def _problem(
    problem: ParomaError, status: int, headers: Mapping[str, str] | None = None, more: Mapping[str, str] | None = None
) -> Response:
    said: dict[str, object] = {
        "title": type(problem).__name__,
        "detail": problem.message,
        "do": problem.do,
        **(more or {}),
    }
    return Response(msgspec.json.encode(said), status, headers, media_type="application/problem+json")


class Broken(ParomaError):
    """A fault of the program: nobody outside learns more."""

    def __init__(self) -> None:
        super().__init__(
            "the program has a fault and did not answer this request",
            do="tell whoever runs the program: its own output says where",
        )


async def broken(_request: Request, _error: Exception) -> Response:
    """What is told of a fault."""
    return _problem(Broken(), 500)


HANDLERS: Mapping[Any, Any] = {ParomaError: problem, HTTPException: problem, Exception: broken}
_LOG: Final = logging.getLogger("paroma")


class Guarded:
    """Adds the security headers to every reply, and says where a fault of the program was in the program's own output, without
    the address, which may name a patient. Plain ASGI: a base middleware costs three times as much a request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; complete the head of the reply."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in self._headers if name not in there),
                ]
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception:
            endpoint = getattr(scope.get("endpoint"), "__qualname__", "no route")
            _LOG.exception("%s %s failed", scope["method"], endpoint)
            raise


async def nothing() -> None:
    """What a program without jobs does at its start and stop."""


def program(
    routes: Sequence[Route],
    *,
    start: Callable[[], Awaitable[None]] = nothing,
    stop: Callable[[], Awaitable[None]] = nothing,
) -> ASGIApp:
    """The ASGI program over `routes` and the static files. Its lifespan calls `start` and `stop`."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await start()
        yield
        await stop()

    static_files = Route("/static/{name}", static, methods=["GET"])
    return Guarded(Starlette(routes=[*routes, static_files], exception_handlers=dict(HANDLERS), lifespan=lifespan))
