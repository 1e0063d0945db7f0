"""A secured stack works for authenticated clients, and for nobody else."""

from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from muster_contracts import SERVICES
from muster_contracts.billing import TermStarted
from muster_contracts.enrollment.agency import AgencyEnrolled
from muster_local import kafka
from muster_local.home import SecuredOtherwise
from muster_local.stack import Stack
from muster_operator.failures import BadInput
from muster_runtime.http.issuer import Issuer
from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.connection import KafkaConnection
from tests.support.command import muster
from tests.support.eventually import eventually
from tests.support.homes import processes_of

PATIENCE = 90


@pytest.mark.usefixtures("embedded")
async def test_a_secured_stack_serves_those_who_say_who_they_are_and_nobody_else(home: Path, tmp_path: Path) -> None:
    option = f"--home={home}"
    up = muster("up", "--secure", option)
    assert up.returncode == 0, up.stdout + up.stderr
    stack = Stack.running(home)
    assert stack is not None
    assert stack.pids().keys() == {"postgres", "kafka", "provider", "mail", *SERVICES}

    contact = ("--contact-name=Ada Administrator", "--contact-email=ada@nasa.gov")
    enrolled = muster("agency", "enroll", "NASA", "--seats=5", *contact, option)
    assert enrolled.returncode == 0, enrolled.stdout + enrolled.stderr
    await eventually(lambda: muster("streams", "check", option).returncode == 0, timeout=PATIENCE)
    plan = muster("topics", "plan", "--acls", option)
    assert plan.returncode == 0, plan.stdout
    status = muster("status", option)
    assert status.returncode == 0, status.stdout

    sandbox = Issuer.load(tmp_path / "issuer.pem", issuer="urn:muster:sandbox")
    async with httpx.AsyncClient(base_url=stack.service_url("enrollment")) as client:
        for token, answer in (
            (stack.token("enrollment:read"), 200),
            (stack.token("billing:read"), 403),
            (sandbox.token(["enrollment:read"], agency="*", subject="operator"), 401),
        ):
            reply = await client.get("/v1/agencies", headers={"authorization": f"Bearer {token}"})
            assert reply.status_code == answer, reply.text
    with pytest.raises(BadInput, match="for all agencies"):
        stack.token("billing:read", agency="NASA")
    with pytest.raises(SecuredOtherwise, match="was made secured"):
        await Stack.start(home, secure=False)

    await _kafka_admits_users_to_their_topics_alone(stack)
    await _postgres_admits_roles_by_tls_alone(stack)
    _only_files_hold_secrets(stack)
    await stack.stop()
    assert processes_of(home) == []


async def _kafka_admits_users_to_their_topics_alone(stack: Stack) -> None:
    assert await kafka.answers(stack.kafka)
    assert not await kafka.answers(KafkaConnection.plain(stack.bootstrap))
    password = (stack.home / "secrets" / "billing" / "MUSTER_KAFKA_PASSWORD").read_text("utf-8")
    user = {**stack.kafka_settings, "kafka_username": "billing", "kafka_password": password}
    wrong = KafkaSettings.model_validate({**user, "kafka_username": "enrollment"})
    assert not await kafka.answers(KafkaConnection(wrong))
    options = KafkaConnection(KafkaSettings.model_validate(user)).options()
    async with AIOKafkaProducer(**options) as producer:
        await producer.partitions_for(TermStarted.topic)
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(AgencyEnrolled.topic, b"{}")


async def _postgres_admits_roles_by_tls_alone(stack: Stack) -> None:
    address, _, _ = stack.admin_dsn.partition("?")
    assert "sslmode=verify-full" in stack.admin_dsn
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(address, ssl="disable")
    nobody = stack.admin_dsn.replace("postgres:", "billing_api:", 1)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(nobody)


def _only_files_hold_secrets(stack: Stack) -> None:
    """Only its owner can read each secret, and no process has one in its environment or its arguments."""
    files = [path for path in (stack.home / "secrets").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(SERVICES)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    secrets = [path.read_text("utf-8") for path in files]
    for pid in stack.pids().values():
        process = psutil.Process(pid)
        told = [*process.environ().values(), *process.cmdline()]
        assert not [secret for secret in secrets if any(secret in each for each in told)]
