"""A server that refuses a command is not taken for one that does not answer: who retries on that would never end."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from muster_local.certificates import Authority
from muster_local.kafka_security import ADMIN
from muster_operator.access import administrator
from muster_operator.access.administrator import Administrator
from muster_operator.cli import app
from muster_operator.databases.provisioning import address
from muster_operator.failures import Refused
from tests.support.secured_kafka import SecuredKafka

ROLLBACK_CHECK = "rollback-check --to 0.1.0 --service billing"


def refused(command: str, environment: Mapping[str, str]) -> str:
    """What a command says that a server refuses."""
    result = CliRunner().invoke(app, command.split(), env=environment)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (4, "", 1), result.output
    return result.stderr.removeprefix("muster: ").rstrip()


@pytest.mark.parametrize("command", [ROLLBACK_CHECK, "databases plan"])
def test_a_wrong_password_of_postgres_is_refused(postgres: str, command: str) -> None:
    environment = {"MUSTER_ADMIN_DSN": address(postgres, "postgres", "nobody_known", "wrong horse")}
    said = 'Postgres refused: password authentication failed for user "nobody_known"'
    assert refused(command, environment) == said


@pytest.mark.parametrize("command", ["topics plan", "topics apply", "streams check"])
def test_a_wrong_password_of_kafka_is_refused(secured: SecuredKafka, postgres: str, command: str) -> None:
    assert "Authentication failed" in refused(command, login(secured, ADMIN, "wrong horse", postgres))


async def test_the_administrators_client_tells_a_refused_login_from_silence(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administrator, "_SECONDS", 3)
    login = secured.librdkafka(ADMIN, "wrong horse")
    stranger = {"ssl.ca.location": str(Authority.load(tmp_path).certificate)}
    for options, said in ((login, "Authentication failed"), (login | stranger, "certificate verify failed")):
        with pytest.raises(Refused, match=f"Kafka refused: .*{said}"):
            await Administrator(options).acls()


def test_a_right_that_kafka_does_not_give_is_refused(secured: SecuredKafka, postgres: str, topic_prefix: str) -> None:
    name = topic_prefix.rstrip(".")
    asyncio.run(secured.administrator().set_password(name, "correct horse"))
    environment = login(secured, name, "correct horse", postgres) | {"MUSTER_TOPIC_PREFIX": topic_prefix}
    said = refused("topics apply --replicas 1", environment)
    assert said.startswith(f"Kafka denies access to the topic {topic_prefix}muster.")


def test_what_kafka_cannot_do_is_refused(kafka_bootstrap: str, topic_prefix: str) -> None:
    environment = {"MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap, "MUSTER_TOPIC_PREFIX": topic_prefix}
    said = refused("topics apply --replicas 9", environment)
    assert said.startswith(f"Kafka refused: [Error 38] InvalidReplicationFactorError: {topic_prefix}muster.")


def login(kafka: SecuredKafka, name: str, password: str, postgres: str) -> dict[str, str]:
    """The settings of somebody who logs in to Kafka."""
    return {
        "MUSTER_ADMIN_DSN": postgres,
        "MUSTER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MUSTER_KAFKA_USERNAME": name,
        "MUSTER_KAFKA_PASSWORD": password,
        "MUSTER_KAFKA_CA_FILE": str(kafka.authority.certificate),
    }
