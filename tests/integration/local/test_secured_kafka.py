"""The secured Kafka: every client authenticates, in one of three ways, and nothing is open to everyone."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from muster_local.certificates import Authority
from muster_local.kafka import Kafka
from muster_local.kafka_security import ADMIN
from muster_operator.access.acls import Acl, Kind, Operation
from tests.support.eventually import eventually
from tests.support.secured_kafka import KafkaTokens, SecuredKafka

Options = dict[str, Any]


async def topics_seen(options: Options) -> list[str]:
    """The topics that a client may see. Raises KafkaError if it is not let in."""
    admin = AIOKafkaAdminClient(**{"request_timeout_ms": 5000, **options})
    try:
        await admin.start()
        return sorted(name for name in await admin.list_topics() if not name.startswith("__"))
    finally:
        await admin.close()


@pytest.fixture
async def topic(secured: SecuredKafka, topic_prefix: str) -> str:
    name = f"{topic_prefix}shown"
    admin = AIOKafkaAdminClient(**secured.login(ADMIN, secured.security.admin_password))
    await admin.start()
    await admin.create_topics([NewTopic(name, 1, 1)])
    await admin.close()
    return name


async def test_each_way_to_authenticate_leads_to_the_same_principal(
    secured: SecuredKafka, kafka_tokens: KafkaTokens, topic: str
) -> None:
    administrator = secured.administrator()
    await administrator.set_password("reader", "correct horse")
    ways = (
        secured.login("reader", "correct horse"),
        secured.certificate(secured.authority.issue("reader")),
        secured.token("reader", kafka_tokens),
    )
    for way in ways:
        assert topic not in await topics_seen(way)  # it is let in, but sees nothing without an ACL
    await administrator.add([Acl("User:reader", Kind.TOPIC, topic, Operation.DESCRIBE)])

    async def all_see_it() -> bool:
        return all([topic in await topics_seen(way) for way in ways])

    await eventually(all_see_it)
    await administrator.remove_user("reader")
    await administrator.remove_user("reader")  # gone already

    async def gone() -> bool:
        return not await administrator.has_user("reader")

    await eventually(gone)
    with pytest.raises(KafkaError):
        await topics_seen(ways[0])


async def test_nobody_else_is_let_in(secured: SecuredKafka, kafka_tokens: KafkaTokens, tmp_path: Path) -> None:
    await secured.administrator().set_password("reader", "correct horse")
    good = secured.certificate(secured.authority.issue("reader"))
    unknown = ssl.create_default_context(cafile=str(secured.authority.certificate))
    stranger = Authority.load(tmp_path / "other").issue("reader")
    unknown.load_cert_chain(stranger.both)
    unproven = ssl.create_default_context(cafile=str(secured.authority.certificate))
    expired = secured.certificate(
        secured.authority.issue("late", starts_at=datetime(2025, 1, 1, tzinfo=UTC), lifetime=timedelta(days=1))
    )
    now = datetime.now(UTC).timestamp()
    refused: dict[str, Options] = {
        "in the clear": {"bootstrap_servers": secured.bootstrap},
        "in the clear, where certificates are shown": {"bootstrap_servers": secured.by_certificate},
        "without a login": {
            "bootstrap_servers": secured.bootstrap,
            "security_protocol": "SSL",
            "ssl_context": unproven,
        },
        "without a certificate": {**good, "ssl_context": unproven},
        "with a stranger's certificate": {**good, "ssl_context": unknown},
        "with an expired certificate": expired,
        "with a wrong password": secured.login("reader", "wrong horse"),
        "as nobody known": secured.login("nobody", "correct horse"),
        "with an expired token": secured.token("reader", kafka_tokens, exp=int(now) - 3600),
        "with a token for others": secured.token("reader", kafka_tokens, aud="muster"),
        "with another's token": secured.token("reader", kafka_tokens, iss="https://elsewhere.test"),
    }
    for way, options in refused.items():
        with pytest.raises((KafkaError, OSError)):
            pytest.fail(f"{way}: {await topics_seen({**options, 'request_timeout_ms': 1500})}")


async def test_a_client_does_not_trust_another_broker(secured: SecuredKafka, tmp_path: Path) -> None:
    login = secured.login(ADMIN, secured.security.admin_password)
    other = ssl.create_default_context(cafile=str(Authority.load(tmp_path / "other").certificate))
    with pytest.raises(KafkaError):
        await topics_seen({**login, "ssl_context": other})


def test_only_their_owner_can_read_secrets_and_no_command_line_shows_them(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = secured.authority.folder
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    lines: list[list[str]] = []
    run = subprocess.run

    def noted(line: list[str], **options: Any) -> Any:
        lines.append(line)
        return run(line, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    broker = Kafka(tmp_path / "kafka", 9092, 9093, security=secured.security)
    broker.prepare()
    password = secured.security.admin_password
    assert not any(password in word for word in (*lines[0], *broker.command()))
    assert password not in repr(secured.security)
    kept = [
        path for path in (tmp_path / "kafka").rglob("*") if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert kept == []
