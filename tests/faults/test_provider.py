"""The identity provider is down for longer than its tokens live: what needs none continues, and the rest waits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from muster_local.kafka_security import TokenIssuer as KafkaTokenIssuer
from muster_local.oidc import Automation, Lifetimes, provider_program, write_configuration
from muster_operator.session.oauth import Client
from muster_runtime.http.tokens import LEEWAY
from tests.faults.findings import Findings
from tests.faults.readiness import readiness_reason
from tests.faults.secured import LATE_SECONDS, SecuredField, secured_field
from tests.faults.servers import Server, free_port
from tests.support.eventually import eventually
from tests.support.secret_files import new_password
from tests.support.services import TokenIssuer

# How long a token lives. A login to Kafka lasts for less: each process needs a new one before long.
TOKEN_SECONDS = 8

SCOPE = "probe:read probe:write probe:operate"


class Provider:
    """The provider as a server that is stopped, and comes back with another signing key and another secret."""

    def __init__(self, folder: Path) -> None:
        self._configuration = folder / "provider.json"
        self.rotate()
        program = provider_program(self._configuration, free_port(), Lifetimes(access_token=TOKEN_SECONDS))
        self.issuer = program.address
        self.server = Server(program, folder / "provider.log", self._answers)

    def rotate(self) -> None:
        """Write its file with a new key, and a new secret of its one client."""
        self.secret = new_password()
        probe = Automation(self.secret, {"agency": "*"}, SCOPE)
        write_configuration(self._configuration, login_clients=[], accounts={}, automations={"probe": probe})

    def token(self) -> str:
        """A token of the client, for the service's HTTP side."""
        return Client(self.issuer, "probe", self.secret, SCOPE).by_credentials().access_token

    async def _answers(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.issuer}/jwks")).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    provider = Provider(tmp_path)
    await provider.server.up()
    yield provider
    provider.server.kill()


@pytest.fixture
async def secured_probe(
    tmp_path: Path, postgres_by_tls: Server, topic_prefix: str, tokens: TokenIssuer, provider: Provider, seed: int
) -> AsyncIterator[SecuredField]:
    await postgres_by_tls.up()
    kafka_tokens = KafkaTokenIssuer(f"{provider.issuer}/jwks", provider.issuer, "muster")
    async with secured_field(tmp_path, postgres_by_tls, topic_prefix, tokens, seed, token_issuer=kafka_tokens) as probe:
        yield probe


async def test_50_the_provider_is_away_for_longer_than_its_tokens_live(
    secured_probe: SecuredField, provider: Provider, findings: Findings
) -> None:
    """Kafka and the service trust its tokens. It returns with another signing key and another client secret."""
    field, files = secured_probe.field, secured_probe.files
    files.put("MUSTER_KAFKA_CLIENT_SECRET", provider.secret)
    api, consumer = await secured_probe.started(
        {
            **secured_probe.settings,
            "MUSTER_KAFKA_USERNAME": None,
            "MUSTER_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "MUSTER_KAFKA_TOKEN_URL": f"{provider.issuer}/token",
            "MUSTER_KAFKA_CLIENT_ID": "probe",
            "MUSTER_OIDC_ISSUER": provider.issuer,
            "MUSTER_OIDC_JWKS": None,
        }
    )
    authorize(field.client, provider)
    await field.traffic(5)
    await field.at_rest()

    authorize(field.client, provider)
    provider.server.kill()
    await field.traffic(20)  # the service already has the keys
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    reasons = [
        await eventually(lambda: readiness_reason(process, "no token from"), timeout=60)  # noqa: B023
        for process in (api, consumer)
    ]
    await eventually(lambda: expired(field.client), timeout=TOKEN_SECONDS + LEEWAY.total_seconds() + 10)

    provider.rotate()
    await provider.server.up()
    await asyncio.sleep(LATE_SECONDS)  # the processes may ask with the old secret, and are refused
    files.put("MUSTER_KAFKA_CLIENT_SECRET", provider.secret)
    findings.fault_is_over()
    await field.ready(api, consumer)
    await eventually(lambda: accepted(field.client, provider), timeout=60)
    await field.traffic(10)
    await field.at_rest(timeout=60)
    findings.recovered(f"readiness said: {reasons[0]}")
    assert api.runs
    assert consumer.runs
    assert await field.differences() == []


def authorize(client: httpx.AsyncClient, provider: Provider) -> None:
    """Have the client present a new token."""
    client.headers["Authorization"] = f"Bearer {provider.token()}"


async def expired(client: httpx.AsyncClient) -> bool:
    """Whether the service refuses the token, which it accepted before."""
    return (await client.get("/v1/parked")).status_code == httpx.codes.UNAUTHORIZED


async def accepted(client: httpx.AsyncClient, provider: Provider) -> bool:
    """Whether the service knows the key of a new token; it asks for an unknown one every half minute."""
    authorize(client, provider)
    return (await client.get("/v1/parked")).is_success
