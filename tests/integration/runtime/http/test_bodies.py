"""Request bodies: none may arrive so slowly, or take so much memory, that other requests are not served."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from muster_runtime.http import exchange
from muster_runtime.http.admission import Admission
from muster_runtime.http.exchange import MEBIBYTE
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.test_requests import JSON, NOTES


async def trickle(pieces: int) -> AsyncIterator[bytes]:
    """A body that never ends."""
    for _ in range(pieces):
        yield b" "
    await asyncio.Event().wait()


async def test_a_body_that_arrives_too_slowly_is_refused(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.2)
    reply = await sample.client.post(NOTES, content=trickle(3), headers=JSON)
    assert (reply.status_code, reply.json()["title"]) == (408, "The body arrived too slowly")
    assert "must average 16384 bytes per second" in reply.json()["detail"]


async def test_one_tenant_cannot_fill_the_memory_with_bodies(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each body is allowed, and so are a tenant's other requests while one of its bodies is in memory."""
    monkeypatch.setattr(exchange, "DEFAULT_BODY_LIMIT", 64 * MEBIBYTE)
    headers = JSON | sample.bearer("sample:write", agency="NASA")
    body = b'"' + b"a" * (40 * MEBIBYTE) + b'"'
    reply = await sample.client.post(NOTES, content=body, headers=headers)
    assert reply.status_code == 429
    assert "bytes for request bodies" in reply.json()["detail"]
    assert (await sample.client.post(NOTES, json={"text": "a"})).status_code == 201


async def test_readiness_says_that_the_process_is_full(sample: Sample) -> None:
    admission = Admission("sample", 2, 4 * MEBIBYTE)
    admission.note_refused()
    assert admission.reasons == []  # a tenant's share was full
    admission.requests.take("NASA")
    admission.requests.take("DOE")
    admission.note_refused()
    assert admission.reasons == ["requests are refused: all 2 request slots are in use"]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"{" + b",".join(b'"k%d":1' % n for n in range(150_000)) + b"}", "at most 1000 keys"),
        (b"{" + b",".join(b'"k%d" \n : 1' % n for n in range(1_001)) + b"}", "at most 1000 keys"),
        (b'{"text":' + b"[" * 33 + b"]" * 33 + b"}", "at most 32 levels"),
        (b'{"text":' + b"[]," * 1_001 + b"[]}", "at most 1000 lists and objects"),
        (b'{"text":[' + b"1," * 1_000_000 + b"1]}", "at most 2000 values"),
    ],
    ids=["many keys", "many keys with spaces", "deep", "many lists", "many values"],
)
async def test_json_of_a_shape_that_no_route_accepts_is_refused_unread(sample: Sample, body: bytes, rule: str) -> None:
    reply = await sample.client.post(NOTES, content=body, headers=JSON)
    assert reply.status_code == 400
    assert rule in reply.json()["detail"]


@pytest.mark.parametrize(
    ("content_type", "encoding", "rule"),
    [("application/JSON", "utf-8", "at most 1000 keys"), ("application/json", "utf-16", "JSON in UTF-8")],
)
async def test_the_shape_is_checked_in_every_encoding(
    sample: Sample, content_type: str, encoding: str, rule: str
) -> None:
    body = json.dumps({f"k{n}": 1 for n in range(1_001)}).encode(encoding)
    reply = await sample.client.post(NOTES, content=body, headers={"content-type": content_type})
    assert (reply.status_code, rule in reply.json()["detail"]) == (400, True)


async def test_a_long_text_costs_no_more_than_itself(sample: Sample) -> None:
    tracemalloc.start()
    reply = await sample.client.post(NOTES, content=b'{"text": "' + b":" * 2_000_000 + b'"}', headers=JSON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.status_code == 422
    assert peak < 40 * MEBIBYTE


async def test_a_body_in_many_pieces_costs_no_more_than_itself(sample: Sample) -> None:
    size = 50_000

    async def pieces() -> AsyncIterator[bytes]:
        """Each piece is a separate object, which takes many times its two bytes."""
        for number in range(size // 2):
            yield b"%d" % (10 + number % 90)
            await asyncio.sleep(0)

    tracemalloc.start()
    reply = await sample.client.put("/v1/agencies/NASA/uploads", content=pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.json() == {"size": size}
    assert peak < 10 * size


async def test_the_content_of_a_string_does_not_count_as_shape(sample: Sample) -> None:
    text = '":' * 20 + "[" * 20 + '\\"' + "{" * 20
    reply = await sample.client.post(NOTES, json={"text": text})
    assert reply.status_code == 201, reply.text
