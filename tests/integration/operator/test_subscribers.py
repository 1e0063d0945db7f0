"""The registry of subscribers on a real, secured Kafka: the commands as an operator gives them, and the runbook."""

import asyncio
import json
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner, Result

from muster_local.kafka_security import ADMIN
from muster_operator.access.acls import Acl, Kind, Operation, principal_of
from muster_operator.cli import app
from muster_operator.subscribers.registry import Registry
from tests.support.eventually import eventually
from tests.support.kafka_identities import Identity
from tests.support.operator import Operator
from tests.support.secured_kafka import SecuredKafka

TERM, SEAT = "muster.billing.term", "muster.entitlements.seat"


class Desk(Operator):
    """An operator in a folder with a subscribers' file, who is the administrator of the secured Kafka."""

    def __init__(self, folder: Path, kafka: SecuredKafka, prefix: str) -> None:
        self.environment = environment_of(kafka, ADMIN, kafka.security.admin_password, prefix)
        super().__init__(folder, self.environment)
        self.kafka = kafka
        self.prefix = prefix
        self.administrator = kafka.administrator()

    async def acls_of(self, name: str) -> set[Acl]:
        """The subscriber's ACLs on Kafka."""
        return {acl for acl in await self.administrator.acls() if acl.principal == principal_of(name)}

    def invoke(self, command: str, environment: Mapping[str, str] | None = None) -> Result:
        """Run a command of `muster subscribers` in this process, by default as the administrator."""
        places = ["--file", str(self.folder / "subscribers.toml"), "--home", str(self.folder / "home")]
        arguments = ["subscribers", *shlex.split(command), *places]
        return CliRunner().invoke(app, arguments, env=environment or self.environment)

    def answer(self, command: str) -> Any:
        """What a command prints as JSON; it must succeed."""
        result = self.invoke(f"{command} --json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def environment_of(kafka: SecuredKafka, name: str, password: str, prefix: str) -> Mapping[str, str]:
    """The settings of somebody who logs in."""
    return {
        "MUSTER_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MUSTER_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "MUSTER_KAFKA_USERNAME": name,
        "MUSTER_KAFKA_PASSWORD": password,
        "MUSTER_KAFKA_CA_FILE": str(kafka.authority.certificate),
        "MUSTER_TOPIC_PREFIX": prefix,
    }


@pytest.fixture
async def desk(secured: SecuredKafka, topic_prefix: str, tmp_path: Path) -> Desk:
    made = Desk(tmp_path, secured, topic_prefix)
    topics = [NewTopic(topic_prefix + name, 1, 1) for name in (TERM, SEAT)]
    for future in made.administrator.client.create_topics(topics).values():
        await made.administrator.ask(future)
    return made


async def test_a_subscriber_is_added_followed_and_removed(desk: Desk) -> None:
    name = f"dash-{secrets.token_hex(4)}"
    facts = f"--owner Treasury --contact x@y.example --purpose Dashboard --topic {TERM}"
    added = await asyncio.to_thread(desk.answer, f"add {name} {facts} --reads muster.billing.TermStarted.v1")
    own = {
        Acl(f"User:{name}", Kind.TOPIC, desk.prefix + TERM, Operation.READ),
        Acl(f"User:{name}", Kind.GROUP, f"{desk.prefix}{name}.", Operation.READ, prefixed=True),
    }
    assert await desk.acls_of(name) == own
    assert set(added["acls"]) == set(map(str, own))

    subscriber = Identity(desk.kafka.librdkafka(name, added["password"]))
    administrator = Identity(desk.kafka.librdkafka(ADMIN, desk.kafka.security.admin_password))
    await asyncio.to_thread(administrator.write, [desk.prefix + TERM])
    group = f"{desk.prefix}{name}.main"

    async def reads() -> bool:
        return await asyncio.to_thread(subscriber.join, group, desk.prefix + TERM, commit=True) == ""

    await eventually(reads)
    for _ in range(2):
        await asyncio.to_thread(administrator.write, [desk.prefix + TERM])
    listed = await asyncio.to_thread(desk.answer, "list")
    assert [(each["name"], each["groups"]) for each in listed["items"]] == [(name, [{"group": group, "lag": 2}])]

    # A repeated command changes nothing, but corrects what was changed behind its back.
    stray = Acl(f"User:{name}", Kind.TOPIC, desk.prefix + SEAT, Operation.READ)
    await desk.administrator.remove(sorted(own))
    await desk.administrator.add([stray])
    again = await asyncio.to_thread(desk.answer, f"add {name}")
    assert "password" not in again
    assert await desk.acls_of(name) == own
    assert await asyncio.to_thread(subscriber.read, [desk.prefix + TERM]) == {desk.prefix + TERM: ""}

    await asyncio.to_thread(desk.answer, f"remove {name}")
    assert await desk.acls_of(name) == set()
    assert not await desk.administrator.has_user(name)
    assert Registry.read(desk.folder / "subscribers.toml").subscribers == {}


async def test_what_failed_half_way_is_completed_by_the_same_command(desk: Desk) -> None:
    name = f"dash-{secrets.token_hex(4)}"
    powerless = f"operator-{secrets.token_hex(4)}"
    await desk.administrator.set_password(powerless, "powerless")
    facts = f"--owner Treasury --contact x@y.example --purpose Dashboard --topic {TERM}"
    kept_in = f"--password-file {desk.folder / 'kept'}"
    refused = environment_of(desk.kafka, powerless, "powerless", desk.prefix)
    failed = await asyncio.to_thread(desk.invoke, f"add {name} {facts} {kept_in}", refused)
    assert (failed.exit_code, "run the same command again" in failed.output) == (4, True)
    assert await desk.acls_of(name) == set()

    done = await asyncio.to_thread(desk.answer, f"add {name} {kept_in}")
    assert ("password" in done, len(await desk.acls_of(name))) == (False, 2)
    kept = (desk.folder / "kept").read_text("utf-8").strip()
    reader = Identity(desk.kafka.librdkafka(name, kept))
    assert await asyncio.to_thread(reader.look, desk.prefix + TERM) == "TOPIC_AUTHORIZATION_FAILED"  # but it is let in

    failed = await asyncio.to_thread(desk.invoke, f"remove {name}", refused)
    assert (failed.exit_code, "run the same command again" in failed.output) == (4, True)
    assert name in Registry.read(desk.folder / "subscribers.toml").subscribers
    assert await desk.administrator.has_user(name)
    await asyncio.to_thread(desk.answer, f"remove {name}")


async def test_a_replaced_password_is_new_and_is_kept_once_kafka_has_it(desk: Desk) -> None:
    name = f"dash-{secrets.token_hex(4)}"
    powerless = f"operator-{secrets.token_hex(4)}"
    await desk.administrator.set_password(powerless, "powerless")
    facts = f"--owner Treasury --contact x@y.example --purpose Dashboard --topic {TERM}"
    kept = desk.folder / "kept"
    await asyncio.to_thread(desk.answer, f"add {name} {facts} --password-file {kept}")
    first = kept.read_text("utf-8")

    again = f"add {name} --new-password --password-file {kept}"
    refused = environment_of(desk.kafka, powerless, "powerless", desk.prefix)
    failed = await asyncio.to_thread(desk.invoke, again, refused)
    assert (failed.exit_code, kept.read_text("utf-8")) == (4, first)
    await asyncio.to_thread(desk.answer, again)
    second = kept.read_text("utf-8").strip()
    assert second != first.strip()
    assert kept.stat().st_mode & 0o777 == 0o600
    reader = Identity(desk.kafka.librdkafka(name, second))
    assert await asyncio.to_thread(reader.look, desk.prefix + TERM) == "TOPIC_AUTHORIZATION_FAILED"  # but it is let in
    assert sorted(file.name for file in desk.folder.glob("*kept*")) == ["kept"]

    (desk.folder / "other").write_text("of something else", "utf-8")
    taken = await asyncio.to_thread(desk.invoke, f"add {name} --new-password --password-file {desk.folder / 'other'}")
    assert (taken.exit_code, "must be accessible only to you" in taken.output) == (2, True)


async def test_the_runbook(desk: Desk) -> None:
    name = f"dash-{secrets.token_hex(4)}"
    said = await asyncio.to_thread(desk.follow, "subscriber-access.md", NAME=name)
    assert f"User:{name} may Read topic {desk.prefix}{TERM}" in said
    assert f"{name}: the next review is on " in said
    assert f"{name} is removed" in said
    assert await desk.acls_of(name) == set()


async def test_without_acls_a_subscriber_is_only_registered(kafka_bootstrap: str, tmp_path: Path) -> None:
    """As in a plain sandbox, whose Kafka has no authorizer."""
    file = tmp_path / "subscribers.toml"
    name = f"assistant-{secrets.token_hex(4)}"
    facts = "--owner Treasury --contact x@y.example --purpose Reports --produces muster.entitlements.usage"

    def invoke(command: str) -> Result:
        arguments = ["subscribers", *shlex.split(command), "--file", str(file), "--home", str(tmp_path / "home")]
        return CliRunner().invoke(app, arguments, env={"MUSTER_KAFKA_BOOTSTRAP": kafka_bootstrap, "COLUMNS": "400"})

    added = await asyncio.to_thread(invoke, f"add {name} {facts} --password-file {tmp_path / 'password'}")
    assert (added.exit_code, "has no ACLs" in added.stdout, "muster up --secure" in added.stdout) == (0, True, True)
    assert not (tmp_path / "password").exists()
    again = await asyncio.to_thread(invoke, f"add {name} --json")
    assert (again.exit_code, json.loads(again.stdout)["acls"]) == (0, [])
    assert Registry.read(file).subscribers.keys() == {name}
    removed = await asyncio.to_thread(invoke, f"remove {name}")
    assert (removed.exit_code, Registry.read(file).subscribers) == (0, {}), removed.output
