"""Serves "Four people, one study" on loopback, as long as the demo's federation runs.

GET / is the screen; /maria and /run lead on to the patient's and the scientist's own pages, each by a fresh single-use
link, as the desk and the scientist's own program would give one.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import paroma
from paroma.kernel.wire.serve import Listening, serve as serve_app
from paroma.lab.four.gather import Look
from paroma.lab.four.page import render_page
from paroma.web.kit.http import nothing, page, program


def make_app(look: Look) -> ASGIApp:
    """The program. One look at a time: the four share their connections."""
    one = asyncio.Lock()

    async def asked(what: Callable[[], str]) -> str:
        async with one:
            return await asyncio.to_thread(what)

    async def home(_request: Request) -> Response:
        return page(await asked(lambda: render_page(look.four(), release=paroma.__version__)))

    def leads_to(link: Callable[[], str]) -> Callable[[Request], Awaitable[Response]]:
        async def lead(_request: Request) -> Response:
            return RedirectResponse(await asked(link), 303)

        return lead

    return program(
        [
            Route("/", home, methods=["GET"]),
            Route("/maria", leads_to(look.patient_link), methods=["GET"]),
            Route("/run", leads_to(look.run_link), methods=["GET"]),
        ]
    )


def serve(look: Look, port: int, *, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGINT or SIGTERM, then close the connections. Only in the main thread."""
    try:
        asyncio.run(serve_app(make_app(look), Listening(host="127.0.0.1", port=port), on_stop=nothing, ready=ready))
    finally:
        look.close()
