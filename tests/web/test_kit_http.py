"""What the routes of both programs share: bodies with a limit, errors as problems, sessions of one program alone."""

import asyncio
import json

import pytest
from starlette.requests import Request
from starlette.routing import Route

from paroma.kernel.errors import BadInput, ParomaError, Refused, Unavailable
from paroma.web.kit import http


def request(body: bytes, *, length: str | None = None, pieces: int = 1) -> Request:
    size = max(1, len(body) // pieces)
    waiting = [body[at : at + size] for at in range(0, len(body), size)] or [b""]

    async def receive():
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    headers = [(b"content-length", length.encode("latin-1"))] if length is not None else []
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize("length", [None, "0", "3", "100"])
def test_a_body_within_the_limit_is_read_whole(length):
    assert asyncio.run(http.body_of(request(b"x" * 100, length=length, pieces=7), 100)) == b"x" * 100


@pytest.mark.parametrize("length", ["101", "9" * 5000, "²", "-1", "1e9", "+5", "١"[:1].encode().decode("latin-1"), ""])
def test_a_length_that_is_too_great_or_no_number_is_refused_before_anything_is_read(length):
    async def never():
        raise AssertionError("the body was read")

    asked = request(b"", length=length)
    asked._receive = never
    with pytest.raises(BadInput):
        asyncio.run(http.body_of(asked, 100))


def test_a_body_that_is_longer_than_it_said_is_refused():
    with pytest.raises(BadInput) as refused:
        asyncio.run(http.body_of(request(b"x" * 5000, length="5", pieces=50), 100))
    assert refused.value.do


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("bad", do="mend it"), 400),
        (Refused("no", do="ask"), 403),
        (http.NotHere(), 404),
        (Unavailable("later", do="repeat"), 503),
        (ParomaError("other", do="look"), 403),
    ],
    ids=lambda one: type(one).__name__,
)
def test_each_error_is_a_problem_with_its_next_step(error, status):
    reply = asyncio.run(http.problem(request(b""), error))
    said = json.loads(reply.body)
    assert reply.status_code == status
    assert reply.media_type == "application/problem+json"
    assert (said["title"], said["detail"], said["do"]) == (type(error).__name__, error.message, error.do)


def test_an_error_of_the_program_itself_is_not_told():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(http.problem(request(b""), ZeroDivisionError("patient-1")))


def test_a_fault_is_told_without_a_word_of_it_and_said_where_in_the_programs_own_output(caplog):
    async def me(_request):
        raise ZeroDivisionError("patient-1")

    said = []

    async def scene():
        app = http.program([Route("/me/{patient}", me)])
        scope = {"type": "http", "method": "GET", "path": "/me/patient-2", "headers": [], "query_string": b""}
        with pytest.raises(ZeroDivisionError):
            await app({**scope, "raw_path": b"/me/patient-2"}, None, lambda message: collect(message))

    async def collect(message):
        said.append(message)

    asyncio.run(scene())
    assert said[0]["status"] == 500
    assert json.loads(said[1]["body"])["title"] == "Broken"
    assert b"patient" not in said[1]["body"]
    assert (b"x-content-type-options", b"nosniff") in said[0]["headers"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "me failed" in record.getMessage()
    assert "patient-2" not in record.getMessage()


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("17", 17), ("18", None), ("", None), ("1.5", None), ("²", None)]
)
def test_a_count_is_plain_digits_up_to_its_most(text, count):
    assert http.count_of(text, 17) == count
