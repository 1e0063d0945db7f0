"""Refused requests: every answer is a problem document that names what is wrong and reveals no internals."""

import gzip
import json
from collections.abc import AsyncIterator

import pytest

from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.problems import problem
from tests.integration.runtime.http.sample import UPLOAD_LIMIT

NOTES = "/v1/agencies/NASA/notes"

UPLOADS = "/v1/agencies/NASA/uploads"

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"text": "a",}', b"\xff\xfe", b"[" * 100_000, b'{"text": "a"} {}'], ids=lambda b: str(b[:12])
)
async def test_what_is_not_json_is_refused(sample: Sample, body: bytes) -> None:
    reply = await sample.client.post(NOTES, content=body, headers=JSON)
    problem(reply, 422 if body == b"" else 400)
    assert await sample.count("note") == 0


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({}, "text", None),
        ([], "body", "[]"),
        ({"text": 7}, "text", "7"),
        ({"text": "a" * 101}, "text", "a" * 101),
        ({"text": "a", "color": "red"}, "color", "red"),
        ({"text": "a", "copies": "many"}, "copies", "many"),
        ({"text": "a", "copies": 10}, "copies", "10"),
        ({"text": "a", "copies": 1.5}, "copies", "1.5"),
        ({"text": "a", "copies": 10**30}, "copies", str(10**30)),
        ({"text": "a", "author": {"name": ""}}, "author.name", ""),
        ({"text": "a", "author": {"nom": "b"}}, "author.name", None),
        ({"text": "wrong"}, "text", "wrong"),
    ],
)
async def test_a_broken_rule_is_reported_with_its_field_and_value(
    sample: Sample, body: object, field: str, value: str | None
) -> None:
    answer = problem(await sample.client.post(NOTES, json=body), 422)
    first = answer["errors"][0]
    assert (first["field"], first["value"]) == (field, value)
    assert first["rule"]
    assert field in answer["detail"]
    assert await sample.count("note") == 0


async def test_text_that_postgres_cannot_keep_is_refused(sample: Sample) -> None:
    assert "U+0000" in problem(await sample.client.post(NOTES, json={"text": "a\0b"}), 422)["detail"]
    lone = await sample.client.post(NOTES, content=rb'{"text": "\ud800"}', headers=JSON)
    problem(lone, 422)
    problem(await sample.client.get(f"{NOTES}/note%00"), 400)
    problem(await sample.client.get(f"{NOTES}?after=%00"), 400)


@pytest.mark.parametrize("path", ["/health/live", NOTES])
async def test_no_cookie_is_read_and_every_head_is_limited(
    sample: Sample, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older Pythons take many seconds for 60 KB of backslashes."""

    def read(_header: str) -> dict[str, str]:
        raise AssertionError("a cookie was read")

    monkeypatch.setattr("starlette.requests.cookie_parser", read)
    assert (await sample.client.get(path, headers={"Cookie": '"' + "\\" * 1000 + '"'})).status_code == 200
    problem(await sample.client.get(path, headers={"Cookie": '"' + "\\" * 40_000 + '"', "X": "x" * 33_000}), 431)


async def test_nan_is_refused(sample: Sample) -> None:
    problem(await sample.client.post(NOTES, content=b'{"text": "a", "copies": NaN}', headers=JSON), 422)


@pytest.mark.parametrize("given", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_without_its_content_type_is_refused_with_the_one_to_send(
    sample: Sample, given: str | None
) -> None:
    headers = {} if given is None else {"Content-Type": given}
    refused = problem(await sample.client.post(NOTES, content=b'{"text": "a"}', headers=headers), 415)
    assert "Content-Type" in refused["detail"]
    assert "send application/json" in refused["detail"]
    assert (given or "missing") in refused["detail"]
    assert await sample.count("note") == 0


@pytest.mark.parametrize("given", ["application/json", "Application/JSON; charset=utf-8", "application/a+json"])
async def test_json_by_any_of_its_names_is_accepted(sample: Sample, given: str) -> None:
    reply = await sample.client.post(NOTES, content=b'{"text": "a"}', headers={"Content-Type": given})
    assert reply.status_code == 201


@pytest.mark.parametrize(
    ("path", "field"),
    [(f"{NOTES}?color=red", "color"), (f"{NOTES}?limit=2&Limit=3", "Limit"), ("/v1/audit?agency=NASA", "agency")],
)
async def test_a_query_parameter_that_the_route_does_not_know_is_refused(sample: Sample, path: str, field: str) -> None:
    """Otherwise a misspelled filter would return everything."""
    refused = problem(await sample.client.get(path), 422)
    assert refused["errors"][0]["field"] == field
    assert "limit" in refused["detail"]


async def test_a_command_with_an_unknown_query_parameter_does_nothing(sample: Sample) -> None:
    refused = problem(await sample.client.post(f"{NOTES}?dry_run=true", json={"text": "a"}), 422)
    assert refused["errors"][0]["field"] == "dry_run"
    assert await sample.count("note") == 0


async def test_a_query_parameter_that_is_given_twice_is_refused(sample: Sample) -> None:
    """A proxy may read the last value, and the service the first."""
    for query in ("limit=1&limit=2", "limit=1&limit=1", "after=YQ==&limit=1&%6Cimit=2"):
        refused = problem(await sample.client.get(f"{NOTES}?{query}"), 422)
        assert refused["errors"][0]["field"] == "limit"
        assert "only once" in refused["detail"]


async def test_a_rule_is_told_in_plain_words(sample: Sample) -> None:
    body = {"text": 7, "color": "red", "copies": 10, "author": {}}
    refused = problem(await sample.client.post(NOTES, json=body), 422)
    assert refused["detail"] == "text: 7 is invalid: must be a string (and 3 more)"
    assert {error["field"]: error["rule"] for error in refused["errors"]} == {
        "text": "must be a string",
        "copies": "must be at most 9",
        "author.name": "is required",
        "color": "must be left out: there is no such field",
    }
    listed = problem(await sample.client.post(NOTES, json={"text": ["a", None]}), 422)
    assert listed["detail"] == 'text: ["a", null] is invalid: must be a string'
    assert listed["errors"][0]["value"] == '["a", null]'
    missing = problem(await sample.client.post(NOTES, json={}), 422)
    assert missing["detail"] == "text: is required"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
async def test_a_body_with_a_coding_is_refused(sample: Sample, coding: str) -> None:
    packed = gzip.compress(b'{"text": "a"}')
    headers = JSON | {"Content-Encoding": coding}
    refused = problem(await sample.client.post(NOTES, content=packed, headers=headers), 415)
    assert coding in refused["detail"]
    assert await sample.count("note") == 0


async def test_the_access_log_says_who_asked_for_what_and_how_it_went(sample: Sample) -> None:
    nasa = sample.bearer("sample:read", agency="NASA", subject="ada")
    ids = {"X-Request-Id": "r-1", "X-Correlation-Id": "c-1"}
    await sample.client.get(f"{NOTES}/note_secret?limit=canary", headers=nasa | ids)
    await sample.client.get(NOTES)
    await sample.client.get(f"{NOTES}", headers={"Authorization": "Bearer canary"})
    await sample.client.get("/v1/agencies/%0Acanary/notes")
    lines = [json.loads(line) for line in sample.logged.getvalue().splitlines()]
    first, program, nobody, invented = [line for line in lines if line["event"] == "request"]
    assert first.pop("milliseconds") > 0
    named = {name: first[name] for name in first if name not in {"time", "level", "logger", "service", "instance"}}
    assert named == {
        "event": "request",
        "method": "GET",
        "route": "/v1/agencies/{agency_id}/notes/{note_id}",
        "status": 422,
        "agency_id": "NASA",
        "actor": "ada",
        "problem": "invalid-input",
        "request_id": "r-1",
        "correlation_id": "c-1",
    }
    assert (program["agency_id"], program["actor"], program["status"]) == ("NASA", "operator", 200)
    assert "problem" not in program
    assert (nobody["status"], nobody["problem"]) == (401, "unauthenticated")
    assert not {"agency_id", "actor"} & set(nobody)
    assert invented["agency_id"] == "*"
    assert "canary" not in sample.logged.getvalue()


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "after=!!", "after=YQ=="])
async def test_a_bad_page_is_refused(sample: Sample, query: str) -> None:
    reply = await sample.client.get(f"{NOTES}?{query}")
    problem(reply, 422)


async def test_an_unknown_address_or_method_is_a_problem(sample: Sample) -> None:
    problem(await sample.client.get("/v1/nothing"), 404)
    problem(await sample.client.get("/redoc"), 404)
    reply = await sample.client.patch(NOTES)
    problem(reply, 405)
    # Each method is a route: on its own, the framework names only those of the first.
    assert reply.headers["allow"] == "DELETE, GET, POST"


@pytest.mark.parametrize(("path", "limit"), [(NOTES, 2 * 1024 * 1024), (UPLOADS, UPLOAD_LIMIT)])
async def test_a_body_beyond_the_routes_limit_is_refused(sample: Sample, path: str, limit: int) -> None:
    async def in_parts(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 65_536):
            yield b"x" * min(65_536, size - start)

    method = "POST" if path == NOTES else "PUT"
    whole = await sample.client.request(method, path, content=b"x" * (limit + 1), headers=JSON)
    refused = problem(whole, 413)
    assert refused["type"] == "urn:muster:problem:body-too-large"
    assert str(limit) in refused["detail"]
    problem(await sample.client.request(method, path, content=in_parts(limit + 1), headers=JSON), 413)


async def test_a_route_may_take_more_than_the_rest(sample: Sample) -> None:
    reply = await sample.client.put(UPLOADS, content=b"x" * UPLOAD_LIMIT)
    assert reply.json() == {"size": UPLOAD_LIMIT}


async def test_an_unforeseen_error_shows_nothing_but_its_request(sample: Sample) -> None:
    reply = await sample.client.post("/v1/agencies/NASA/failures/unforeseen")
    problem(reply, 500)
    assert "hunter2" not in reply.text
    assert "RuntimeError" not in reply.text


async def test_the_logs_know_a_failed_request_but_no_secret_or_input(sample: Sample) -> None:
    ids = {"X-Request-Id": "r-1", "X-Correlation-Id": "c-1"}
    failed = await sample.client.post("/v1/agencies/NASA/failures/unforeseen", headers=ids)
    await sample.client.post(NOTES, json={"text": "ada@nasa.gov"})
    await sample.client.post(NOTES, json={"text": ["ada@nasa.gov"]})
    lines = [json.loads(line) for line in sample.logged.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines if line.get("request_id") == "r-1"] == [
        ("request_failed", "error"),
        ("request", "info"),
    ]
    assert lines[0]["error"].startswith("RuntimeError")
    assert lines[0]["correlation_id"] == "c-1"
    assert any("sample.py" in place for place in lines[0]["stack"])
    assert failed.json()["request_id"] == "r-1"
    for secret in ("ada@nasa.gov", sample.client.headers["authorization"].removeprefix("Bearer ")):
        assert secret not in sample.logged.getvalue()


@pytest.mark.parametrize("kind", ["lost", "locked", "retryable"])
async def test_a_transient_error_may_be_retried(sample: Sample, kind: str) -> None:
    reply = await sample.client.post(f"/v1/agencies/NASA/failures/{kind}")
    problem(reply, 503)
    assert reply.headers["retry-after"] == "1"
    assert "10.0.0.7" not in reply.text


async def test_a_request_whose_database_connection_is_gone_may_be_retried(sample: Sample) -> None:
    await sample.admin.execute(
        """
        select pg_terminate_backend(pid)
        from pg_stat_activity
        where datname = current_database() and usename = 'sample_api'
        """
    )
    replies = [await sample.client.post(NOTES, json={"text": "a"}) for _ in range(3)]
    assert {reply.status_code for reply in replies} <= {201, 503}
    assert replies[-1].status_code == 201


@pytest.mark.parametrize("name", ["Authorization", "Idempotency-Key", "If-Match", "Content-Type"])
async def test_a_header_that_is_given_twice_is_refused(sample: Sample, name: str) -> None:
    """A proxy may read the last value, and the service the first."""
    once = JSON | sample.bearer("sample:write", agency="NASA") | {"Idempotency-Key": "k-1", "If-Match": '"1"'}
    reply = await sample.client.post(
        NOTES, content=b'{"text": "a"}', headers=[*once.items(), (name.lower(), once[name])]
    )
    assert f"{name.lower()} must be sent only once" in problem(reply, 400)["detail"].lower()
    assert await sample.count("note") == 0


@pytest.mark.parametrize("given", ["r-1", "A.b_c:9"])
async def test_a_request_keeps_its_ids(sample: Sample, given: str) -> None:
    reply = await sample.client.get(NOTES, headers={"X-Request-Id": given, "X-Correlation-Id": "c-" + given})
    assert reply.headers["x-request-id"] == given
    assert reply.headers["x-correlation-id"] == "c-" + given


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, '"'])
async def test_an_id_that_might_break_a_log_is_replaced(sample: Sample, given: str) -> None:
    reply = await sample.client.get(NOTES, headers={"X-Request-Id": given})
    assert reply.headers["x-request-id"] != given
    assert reply.headers["x-correlation-id"] == reply.headers["x-request-id"]
