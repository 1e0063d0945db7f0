"""Muster's topics on the secured Kafka, and a test's own identities with the ACLs that Muster grants."""

import secrets
from typing import Any

from confluent_kafka.admin import NewTopic

from muster_contracts import SERVICES, Topic, topics
from muster_operator.access.administrator import Administrator
from muster_operator.access.application import Access, applied
from tests.support.eventually import eventually
from tests.support.kafka_identities import Identity
from tests.support.secured_kafka import SecuredKafka

# The topics that the services write.
FACTS: dict[str, Topic] = {
    name: topic for name, topic in topics().items() if topic.owner in SERVICES and topic.producers == "owner"
}


class House:
    """One test's topics and identities on the secured Kafka."""

    def __init__(self, kafka: SecuredKafka, administrator: Administrator, prefix: str) -> None:
        self.kafka = kafka
        self.administrator = administrator
        self.prefix = prefix
        self._passwords: dict[str, str] = {}
        # Each test has its own identities.
        self.principal = f"User:{prefix}{{name}}"
        self.names = {prefix + name: topic for name, topic in FACTS.items()}

    async def identity(self, name: str) -> Identity:
        """Create an identity with a password."""
        self._passwords[name] = secrets.token_hex(8)
        await self.administrator.set_password(self.prefix + name, self._passwords[name])
        return Identity(self.login(name))

    def login(self, name: str) -> dict[str, Any]:
        """The librdkafka options of a client with this identity."""
        return self.kafka.librdkafka(self.prefix + name, self._passwords[name])

    async def has(self, access: Access) -> None:
        """Wait until the broker has all of these ACLs: the controller replies before that."""

        async def known() -> bool:
            return access.differences(await self.administrator.acls()) == []

        await eventually(known)


async def furnished(secured: SecuredKafka, prefix: str) -> House:
    """Create the topics, and the services' ACLs."""
    administrator = secured.administrator()
    made = House(secured, administrator, prefix)
    created = administrator.client.create_topics([NewTopic(name, 1, 1) for name in made.names])
    for future in created.values():
        await administrator.ask(future)
    access = Access.wanted(prefix, made.principal, None, sandbox=False)
    await applied(administrator, access, prune=False)
    await made.has(access)
    return made
