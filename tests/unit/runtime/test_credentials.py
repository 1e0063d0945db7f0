"""Kafka clients' credentials reread their files; certificate files that do not match each other are not used."""

import secrets
import ssl
from pathlib import Path

import pytest
from aiokafka.conn import ScramAuthenticator
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from pydantic import SecretStr

from muster_local.certificates import Authority
from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.client_internals import LiveText
from muster_runtime.messaging.connection import KafkaConnection, forbidden
from muster_runtime.messaging.credentials import CertificateContext
from muster_runtime.secrets import FileSecret


def test_each_authentication_rereads_the_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("the first")
    password = LiveText(FileSecret("MUSTER_KAFKA_PASSWORD_FILE", file))
    assert (password, repr(password)) == ("", "''")

    def authenticated_with() -> bytes:
        authenticator = ScramAuthenticator(
            loop=None,
            sasl_plain_password=password,
            sasl_plain_username=LiveText(SecretStr("a,user")),
            sasl_mechanism="SCRAM-SHA-512",
        )
        assert authenticator.first_message().startswith("n,,n=a=2Cuser,r=")
        used: bytes = authenticator._sasl_plain_password
        return used

    assert authenticated_with() == b"the first"
    file.write_text("another")
    assert authenticated_with() == b"another"


def test_each_handshake_uses_the_current_certificate_files(tmp_path: Path) -> None:
    authority, other = Authority.load(tmp_path / "one"), Authority.load(tmp_path / "other")
    mine = authority.issue("enrollment")
    context = CertificateContext(str(authority.certificate), str(mine.certificate), str(mine.key))

    def begin() -> None:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="kafka.test")

    begin()
    first = context._current
    mine.key.write_bytes(other.issue("enrollment").key.read_bytes())
    begin()
    assert context._current is first
    assert context.rejection == "the new certificate files of Kafka are not used: KEY_VALUES_MISMATCH"
    authority.issue("enrollment")
    begin()
    assert context._current is not first
    assert context.rejection is None
    authority.certificate.write_bytes(other.certificate.read_bytes())
    begin()
    trusted = [dict(pair[0] for pair in each["subject"])["commonName"] for each in context._current.get_ca_certs()]
    assert len(trusted) == 1, "a withdrawn authority is no longer trusted"


def test_a_client_has_the_options_of_its_protocol() -> None:
    assert KafkaConnection.plain("a:1,b:2").options() == {"bootstrap_servers": "a:1,b:2"}
    settings = KafkaSettings(
        kafka_bootstrap="a:1",
        kafka_security_protocol="SASL_SSL",
        kafka_username=SecretStr("enrollment"),
        kafka_password=SecretStr(secrets.token_hex()),
    )
    connection = KafkaConnection(settings)
    options = connection.options()
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert options["ssl_context"] is connection.options()["ssl_context"]
    assert connection.user == "enrollment"
    assert connection.warnings == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TopicAuthorizationFailedError("a"), "Kafka denies access to the topic a"),
        (TopicAuthorizationFailedError({"b", "a"}), "Kafka denies access to the topic a b"),
        (ClusterAuthorizationFailedError(), "Kafka denies access to the cluster"),
        (KafkaError(), None),
    ],
)
def test_an_operation_that_kafka_denies_is_named(error: KafkaError, reason: str | None) -> None:
    assert forbidden(error) == reason
