"""A process whose token issuer hangs continues to serve with the keys that it has, and its readiness says so."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from muster_runtime.http import keys
from muster_runtime.settings import Settings
from tests.integration.runtime.core.probe.service import build
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer
from tests.support.services import RunningService, ServiceRunner, TokenIssuer


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are stale at once, and a request to an issuer that hangs times out soon."""
    monkeypatch.setattr(keys, "MAX_AGE", 0.0)
    monkeypatch.setattr(keys, "READ_SECONDS", 2.0)


async def health(service: RunningService) -> tuple[int, list[str], list[str]]:
    reply = await service.client.get("/health/ready")
    body = reply.json()
    return reply.status_code, body["reasons"], body["warnings"]


async def test_an_issuer_that_hangs_is_a_warning_while_there_are_keys(
    run_service: ServiceRunner, tokens: TokenIssuer
) -> None:
    with KeyServer(tokens.issuer.jwks()) as issuer:
        probe = await run_service(build, Settings, roles=frozenset(), oidc_jwks=issuer.url)
        await eventually(lambda: _is_well(probe))
        issuer.manner = "hang"

        async def warned() -> bool:
            status, reasons, warnings = await health(probe)
            assert not any("issuer" in reason for reason in reasons)
            return status == 200 and any("token issuer's keys cannot be read" in warning for warning in warnings)

        await eventually(warned)
        await eventually(lambda: _age_of_keys() > keys.READ_SECONDS)
        async with asyncio.timeout(10):
            for _ in range(20):
                assert (await probe.client.get("/v1/streams")).status_code == 200

        issuer.manner = "answer"
        await eventually(lambda: _is_well(probe))
        assert _age_of_keys() < keys.READ_SECONDS


async def test_a_process_that_never_had_keys_is_not_ready_and_says_why(
    run_service: ServiceRunner, tokens: TokenIssuer
) -> None:
    with KeyServer(tokens.issuer.jwks(), "trickle") as issuer:
        probe = await run_service(build, Settings, roles=frozenset(), oidc_jwks=issuer.url)
        status, reasons, _ = await health(probe)
        assert status == 503
        assert any("token issuer" in reason for reason in reasons)
        assert (await probe.client.get("/v1/streams")).status_code == 503
        issuer.manner = "answer"
        await eventually(lambda: _is_well(probe))
        assert (await probe.client.get("/v1/streams")).status_code == 200


def _age_of_keys() -> float:
    return REGISTRY.get_sample_value("muster_issuer_keys_age_seconds", {"service": "probe"}) or 0.0


async def _is_well(service: RunningService) -> bool:
    return await health(service) == (200, [], [])
