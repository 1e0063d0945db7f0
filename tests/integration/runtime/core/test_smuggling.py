"""Two readers of one connection agree on where a request ends, or it is refused: what a proxy in front relies on."""

import gzip
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.runtime.core.front import Front, fronting, statuses
from tests.support.services import ServiceRunner, TokenIssuer

LIVE = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = "POST /v1/agencies/NASA/authorizations HTTP/1.1\r\nHost: localhost\r\n"

# What two readers may split differently. Each is followed by a request that must not be answered.
AMBIGUOUS = {
    "both lengths": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, reversed": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": "Content-Length: 0, 5\r\n\r\n",
    "a signed length": "Content-Length: +0\r\n\r\n",
    "a length below zero": "Content-Length: -1\r\n\r\n",
    "a length beyond all": "Content-Length: 99999999999999999999999\r\n\r\n",
    "a blank before the colon": "Content-Length : 0\r\n\r\n",
    "a folded header": "X-Folded: a\r\n b\r\n\r\n",
    "a folded coding": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "lines that end early": "X: a\n\n",
    "U+0000": "X: a\0b\r\n\r\n",
    "two codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding in quotes": 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding behind a tab": "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a name with a blank": "X Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a second addressee": "Host: elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}

# What two readers may split differently within a chunked body: each finds its end in another place.
CHUNKS = {
    "a size beyond all": "fffffffffffffffff\r\n\r\n0\r\n\r\n",
    "a size with a prefix": "0x0\r\n\r\n",
    "a signed size": "+0\r\n\r\n",
    "a size below zero": "-1\r\n\r\n",
    "a size with a blank": "1 0\r\na\r\n0\r\n\r\n",
    "no size": "\r\n\r\n",
    "a size of no number": "zz\r\n\r\n",
    "an extension that ends early": "0;a\n\r\n",
    "a size that ends early": "0\n\n",
    "more than its size": "1\r\nab\r\n0\r\n\r\n",
    "a chunk that ends early": "1\r\na\n0\r\n\r\n",
}


@pytest.fixture
async def front(
    run_service: ServiceRunner, tokens: TokenIssuer, tmp_path: Path, unused_tcp_port: int
) -> AsyncIterator[Front]:
    async with fronting(run_service, tokens, tmp_path / "log", unused_tcp_port) as found:
        yield found


async def test_a_request_that_two_readers_may_cut_differently_is_refused(front: Front) -> None:
    answers = {name: statuses(await front.ask(f"{HEAD}{rest}{LIVE}".encode())) for name, rest in AMBIGUOUS.items()}
    assert {name: answer for name, answer in answers.items() if answer != [400]} == {}


async def test_a_body_of_chunks_that_two_readers_may_cut_differently_hides_no_request(front: Front) -> None:
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    answers = {name: statuses(await front.ask(f"{head}{chunks}{LIVE}".encode())) for name, chunks in CHUNKS.items()}
    assert {name: answer for name, answer in answers.items() if answer != [400]} == {}


async def test_a_request_names_its_host_once(front: Front) -> None:
    """RFC 9112, 3.2. A client of HTTP/1.0 need not know of Host."""
    for path in ("/health/live", "/v1/agencies"):
        refused = await front.ask(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        assert statuses(refused) == [400]
        assert b"a request must have exactly one Host header" in refused
    assert statuses(await front.ask(b"GET /health/live HTTP/1.0\r\n\r\n")) == [200]


async def test_a_packed_body_is_not_unpacked(front: Front) -> None:
    """A gigabyte of zeros is a megabyte when compressed: here it is refused, and costs no more than its own size."""
    packed = gzip.compress(b"0" * 6_400_000)  # in one segment: what arrives after the answer would reset it
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        head = (
            f"{HEAD}{front.bearer('*', 'enrollment:authorize')}Content-Type: application/json\r\n"
            f"Content-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\nConnection: close\r\n\r\n"
        )
        refused = await front.ask(head.encode() + packed)
        assert statuses(refused) == [415], coding
        assert b"Content-Encoding" in refused


async def test_no_answer_names_the_server_and_each_tells_a_browser_what_it_may_do(front: Front) -> None:
    async with httpx.AsyncClient(base_url=front.url) as client:
        for path in ("/", "/docs", "/health/live", "/metrics", "/v1/agencies", "/nothing"):
            fields = (await client.get(path)).headers
            assert "server" not in fields
            assert not [name for name in fields if name.startswith("access-control")]
            assert "frame-ancestors 'none'" in fields["content-security-policy"]
            assert "default-src 'none'" in fields["content-security-policy"]
            assert fields["x-content-type-options"] == "nosniff"
            assert fields["referrer-policy"] == "no-referrer"
            assert fields["cross-origin-resource-policy"] == "same-origin"
            assert fields["cache-control"] == "no-store"
        wish = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
        refused = await client.options("/v1/agencies", headers=wish)
        assert refused.status_code == 401
        assert not [name for name in refused.headers if name.startswith("access-control")]


@pytest.mark.parametrize("length", [f"Content-Length: {len(LIVE)}", "Transfer-Encoding: chunked"])
async def test_the_body_of_an_offer_to_upgrade_is_no_request(front: Front, length: str) -> None:
    """The parser takes what follows such a head for another protocol, but what the next packet holds for a request."""
    reader, writer = await front.connect()
    try:
        writer.write(f"{HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{length}\r\n\r\n".encode())
        answers = await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):  # closed already
            writer.write(LIVE.encode())
            answers += await reader.read()
        assert statuses(answers) == [400]
    finally:
        writer.close()
    assert await front.metric("muster_http_connections_closed_total", reason="upgrade") == 1


async def test_an_offer_to_upgrade_without_a_body_is_passed_over(front: Front) -> None:
    """Java's client makes one with each request, by default."""
    offer = LIVE.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    answer = await front.ask(offer.encode())
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


async def test_no_form_of_an_address_leads_to_another_agency(front: Front) -> None:
    token = front.bearer("EPA")
    targets = {
        "/v1/agencies/NASA": 404,
        "/v1/agencies/EPA%2F..%2FNASA": 404,
        "/v1/agencies/EPA/../NASA": 404,
        "/v1/agencies%2FNASA": 404,
        "/v1/agencies/%4E%41%53%41": 404,
        "/v1//agencies/NASA": 404,
        "/v1/agencies/NASA/": 404,
        "/v1/agencies/%EF%BC%AEASA": 404,
        "/v1/agencies/%ED%A0%80": 404,
        "/v1/agencies/EPA%00": 400,
        "/v1/agencies/*": 404,
        "/v1/agencies/" + "9" * 5_000: 404,
        "http://elsewhere.example/v1/agencies/NASA": 404,
        "http://elsewhere.example/health/live": 200,
        "/health/live%2F..%2F..%2Fv1%2Fagencies": 404,
        "*": 404,
        "http://elsewhere.example": 400,
        "/v1/agencies?limit=" + "9" * 5_000: 422,
        "/v1/audit?agency_id=NASA": 403,
    }
    got = {}
    for target in targets:
        for version in ("1.0", "1.1"):
            head = f"GET {target} HTTP/{version}\r\nHost: [\r\n{token}Connection: close\r\n\r\n"
            got[target, version] = statuses(await front.ask(head.encode()))
    assert got == {(target, version): [status] for target, status in targets.items() for version in ("1.0", "1.1")}
