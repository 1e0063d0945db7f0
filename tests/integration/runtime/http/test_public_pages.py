"""What needs no token: health, metrics, and the documentation."""

import json
import re
from typing import Any

import pytest

from muster_runtime.http.application import openapi
from muster_runtime.http.health import Health
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.problems import problem
from tests.integration.runtime.http.sample import build

NOTES = "/v1/agencies/NASA/notes"


async def test_health_and_metrics_need_no_token(sample: Sample) -> None:
    await sample.client.get(f"{NOTES}/note_1")
    del sample.client.headers["authorization"]
    assert (await sample.client.get("/health/live")).status_code == 200
    ready = await sample.client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {
            "ready": True,
            "reasons": [],
            "outbox": {"rows": 0, "oldest_seconds": 0.0},
            "lag": 0,
            "parked": 0,
            "warnings": [],
        },
    )
    sample.health = Health(ready=False, serving=True, reasons=["Kafka cannot be reached"], lag=7)
    unready = await sample.client.get("/health/ready")
    assert unready.status_code == 503
    assert unready.json()["reasons"] == ["Kafka cannot be reached"]
    serving = await sample.client.get("/health/serving")
    assert (serving.status_code, serving.json()) == (200, unready.json())
    sample.health = Health(ready=False, serving=False, reasons=["Postgres cannot be reached"])
    assert (await sample.client.get("/health/serving")).status_code == 503
    metrics = (await sample.client.get("/metrics")).text
    assert 'route="/v1/agencies/{agency_id}/notes/{note_id}",service="sample",status="404"' in metrics
    assert "note_1" not in metrics


async def test_the_metrics_do_not_grow_with_what_a_caller_invents(sample: Sample) -> None:
    problem(await sample.client.request("BREW", "/v1/coffee"), 404)
    metrics = (await sample.client.get("/metrics")).text
    assert "coffee" not in metrics
    assert "BREW" not in metrics


async def test_the_documentation_is_public_and_of_this_host_alone(sample: Sample) -> None:
    del sample.client.headers["authorization"]
    named = (await sample.client.get("/")).json()
    assert (named["documentation"], named["openapi"]) == ("/docs", "/openapi.json")
    for path in named.values():
        if path.startswith("/"):
            assert (await sample.client.get(path)).status_code == 200, path
    page = await sample.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href|spec-url)="([^"]*)"', page.text)
    local = [address for address in addresses if not address.startswith("data:")]
    assert local == ["openapi.json", "docs/redoc.standalone.js"]
    script = await sample.client.get("/" + local[1])
    assert script.headers["content-type"].startswith("text/javascript")
    assert b"Redoc" in script.content


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/redoc.standalone.js"])
async def test_a_large_public_page_is_in_memory_once_for_all_requests(sample: Sample, path: str) -> None:
    """Thousands of connections may request it without a token, and never read the response."""
    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    for _ in range(2):
        scope = {
            "type": "http",
            "http_version": "1.0",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
        }
        await sample.app(scope | {"headers": []}, receive, send)
    assert len(bodies) == 2
    assert bodies[0] is bodies[1]


async def test_the_api_describes_itself(sample: Sample) -> None:
    document = (await sample.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document == json.loads(json.dumps(openapi(build())))
    operation = document["paths"]["/v1/agencies/{agency_id}/notes"]["post"]
    assert operation["security"] == [{"oidc": ["sample:write"]}]
    assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert "422" not in operation["responses"]
