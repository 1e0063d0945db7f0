"""Every HTTP status has a problem, even one that our code never raises."""

import json
from datetime import UTC, date, datetime
from http import HTTPStatus

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from muster_runtime.errors import InvalidInput
from muster_runtime.http.problems import answer


@pytest.mark.parametrize(
    ("value", "text", "quoted"),
    [
        (datetime(2025, 8, 6, 1, 2, 3, 4, tzinfo=UTC), "2025-08-06T01:02:03.000004Z", "'2025-08-06T01:02:03.000004Z'"),
        (date(2025, 8, 6), "2025-08-06", "'2025-08-06'"),
        (b"foo \xff", "foo \ufffd", "'foo \ufffd'"),
        ([], "[]", "[]"),
        (7, "7", "7"),
    ],
)
def test_a_problem_shows_a_value_as_a_request_writes_it(value: object, text: str, quoted: str) -> None:
    refusal = InvalidInput("field", value, "must be another")
    assert refusal.extensions["errors"] == [{"field": "field", "value": text, "rule": "must be another"}]
    assert refusal.detail == f"field: {quoted} is invalid: must be another"


@pytest.mark.parametrize(
    ("error", "slug", "title", "detail"),
    [
        (HTTPException(418), "http-418", HTTPStatus(418).phrase, None),
        (HTTPException(416, "from 5 on"), "http-416", HTTPStatus(416).phrase, "from 5 on"),
        (HTTPException(413), "body-too-large", "The body is too large", None),
    ],
)
async def test_an_http_error_is_a_problem(error: HTTPException, slug: str, title: str, detail: str | None) -> None:
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    request.state.request_id = "req_1"
    reply = await answer(request, error)
    problem = json.loads(bytes(reply.body))
    assert (reply.status_code, problem["type"]) == (error.status_code, f"urn:muster:problem:{slug}")
    assert (problem["title"], problem.get("detail")) == (title, detail)
