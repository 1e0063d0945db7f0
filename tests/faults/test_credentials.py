"""Credentials expire, are rotated, and are revoked: nothing is lost or duplicated, and nobody restarts a process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from muster_operator.access.acls import Acl, Kind, Operation
from muster_runtime.clock import SystemClock
from muster_runtime.http.issuer import Issuer
from tests.faults.findings import Findings
from tests.faults.probe.service import TOPIC
from tests.faults.readiness import readiness_reason
from tests.faults.secured import (
    LATE_SECONDS,
    LOGIN_SECONDS,
    PRINCIPAL,
    SecuredField,
    end_sessions,
    secured_field,
)
from tests.faults.servers import Process, Server
from tests.support.eventually import eventually
from tests.support.services import ISSUER, TokenIssuer

# The pause between two certificates of the same client.
PAUSE_SECONDS = 0.02


@pytest.fixture
async def secured_probe(
    tmp_path: Path, postgres_by_tls: Server, topic_prefix: str, tokens: TokenIssuer, seed: int
) -> AsyncIterator[SecuredField]:
    await postgres_by_tls.up()
    async with secured_field(tmp_path, postgres_by_tls, topic_prefix, tokens, seed) as probe:
        yield probe


async def test_46_rotated_under_load_no_credential_loses_a_request_or_an_event(
    secured_probe: SecuredField, findings: Findings
) -> None:
    """Kafka's and Postgres' passwords, which change on the servers first, and the token issuer's keys.

    Kafka cuts each connection three seconds after its login; Postgres needs new sessions as the load grows.
    """
    field, files = secured_probe.field, secured_probe.files
    jwks = files.put("jwks.json", field.tokens.jwks.read_text())
    settings = {**secured_probe.settings, "MUSTER_OIDC_JWKS": str(jwks)}
    api, consumer = await secured_probe.started(settings)
    await field.traffic(3, at_once=1)
    await field.at_rest()
    before = _complaints(api) + _complaints(consumer)
    until = time.monotonic() + LOGIN_SECONDS * 2.5
    while time.monotonic() < until:
        await field.traffic(3, at_once=1)  # few sessions: those that the load needs later log in again
    assert _complaints(api) + _complaints(consumer) == before, "logins expired, and that is all"

    async with field.live_traffic():
        other = Issuer.load(field.folder / "other-key.pem", issuer=ISSUER)
        files.put("jwks.json", json.dumps({"keys": [*field.tokens.issuer.jwks()["keys"], *other.jwks()["keys"]]}))
        field.client.headers["Authorization"] = f"Bearer {other.token(['probe:write'], agency='*')}"
        for role in ("api", "worker"):
            await _rotate_postgres(secured_probe, role)
        for _ in range(2):
            await secured_probe.set_kafka_password()
            await asyncio.sleep(LOGIN_SECONDS * 1.5)
    findings.fault_is_over()
    await field.at_rest()
    findings.recovered(f"{len(field.recorder.commands())} commands answered on the first try")
    assert field.retried == 0
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    for process in (api, consumer):
        assert process.runs
        assert process.logged("secret_replaced"), process.said()[-2000:]
    assert await field.differences() == []


async def test_47_an_expired_client_certificate_is_replaced(secured_probe: SecuredField, findings: Findings) -> None:
    """Open connections continue; a new one cannot be made until the files hold another certificate."""
    field, authority = secured_probe.field, secured_probe.kafka.authority
    await secured_probe.started(secured_probe.settings_with(authority.issue("probe")))
    await field.traffic(10)
    await field.at_rest()
    yesterday = SystemClock().now() - timedelta(days=1)
    authority.issue("probe", starts_at=yesterday, lifetime=timedelta(hours=1))
    secured_probe.kafka.server.kill()
    await secured_probe.kafka.server.up()
    await field.traffic(20)
    reason = await eventually(lambda: readiness_reason(field.api, "Kafka refuses the certificate"), timeout=30)
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    authority.issue("probe")
    findings.fault_is_over()
    await field.at_rest(timeout=60)
    findings.recovered(f"readiness said: {reason}")
    await field.ready(*field.processes)
    assert await field.differences() == []


async def test_47_rotated_under_load_client_certificates_lose_no_request_and_no_event(
    secured_probe: SecuredField, findings: Findings
) -> None:
    """A certificate is replaced many times a second while the broker restarts: connections begin between its files."""
    field, authority = secured_probe.field, secured_probe.kafka.authority
    api, consumer = await secured_probe.started(secured_probe.settings_with(authority.issue("probe")))

    async def rotate() -> None:
        while True:
            authority.issue("probe")
            await asyncio.sleep(PAUSE_SECONDS)

    async with field.live_traffic():
        rotating = asyncio.create_task(rotate())
        for _ in range(2):
            secured_probe.kafka.server.kill()
            await secured_probe.kafka.server.up()
            await field.ready(api, consumer, timeout=60)
        rotating.cancel()
    findings.fault_is_over()
    await field.at_rest(timeout=60)
    findings.recovered(f"{len(field.recorder.commands())} commands answered on the first try")
    assert field.retried == 0
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    for process in (api, consumer):
        assert process.runs
        assert process.logged("certificates_replaced"), process.said()[-2000:]
    assert await field.differences() == []


async def test_48_a_right_is_revoked_under_load_and_granted_again(
    secured_probe: SecuredField, findings: Findings
) -> None:
    """Neither the relay nor the consumer drops or parks anything; both report the refusal, and continue after it."""
    field, administrator = secured_probe.field, secured_probe.administrator
    api, consumer = await secured_probe.started(secured_probe.settings)
    topic = field.prefix + TOPIC
    seen = []
    for process, right, reason in (
        (api, (Kind.TOPIC, topic, Operation.WRITE), f"Kafka denies access to the topic {topic}"),
        (consumer, (Kind.TOPIC, topic, Operation.READ), f"Kafka denies Read on the topic {topic}"),
        (consumer, (Kind.GROUP, f"{field.prefix}probe", Operation.READ), "Kafka denies access to the group"),
    ):
        revoked = [Acl(PRINCIPAL, *right, allow=False)]
        async with field.live_traffic():
            await administrator.add(revoked)
            seen.append(await eventually(partial(readiness_reason, process, reason), timeout=30))
            await administrator.remove(revoked)
        findings.fault_is_over()
        await field.at_rest(timeout=60)
    findings.recovered(f"readiness said: {'; '.join(seen)}")
    await field.ready(api, consumer, timeout=30)
    assert field.retried == 0
    assert await field.differences() == []


async def test_49_a_revoked_credential_shows_and_recovers_without_a_restart(
    secured_probe: SecuredField, findings: Findings
) -> None:
    field = secured_probe.field
    api, consumer = await secured_probe.started(secured_probe.settings)
    await field.traffic(5)
    await secured_probe.administrator.remove_user("probe")
    kafka = await eventually(lambda: _all_say((api, consumer), "Kafka refuses the user probe"), timeout=30)
    await field.traffic(5)  # commands need no Kafka
    assert {command.ending for command in field.recorder.commands()} == {"answered"}
    await secured_probe.set_kafka_password()
    await field.at_rest(timeout=60)

    await field.admin.execute("alter role probe_worker password 'changed by somebody else'")
    await end_sessions(field.admin, "probe_worker")
    postgres = await eventually(
        lambda: _all_say((api, consumer), "Postgres refuses the password of probe_worker"), timeout=30
    )
    await secured_probe.set_postgres_password("worker")
    findings.fault_is_over()
    await field.ready(api, consumer)
    await field.traffic(5)
    await field.at_rest(timeout=60)
    findings.recovered(f"readiness said: {kafka}; {postgres}")
    assert await field.differences() == []


def _complaints(process: Process) -> list[str]:
    """What the client of Kafka has logged."""
    return [line for line in process.said().splitlines() if '"logger": "aiokafka' in line]


async def _rotate_postgres(probe: SecuredField, role: str) -> None:
    """The server has the new password before the file; meanwhile the load needs new sessions, which wait for it."""
    password = f"{role}-{probe.field.dice.getrandbits(160):040x}"
    await probe.field.admin.execute(f"alter role probe_{role} password '{password}'")
    await asyncio.sleep(LATE_SECONDS)
    probe.put_address(role, password)


async def _all_say(processes: tuple[Process, ...], words: str) -> str:
    reasons = [await readiness_reason(process, words) for process in processes]
    return reasons[0]
