"""The topics on the secured Kafka, and identities of a test's own, which have what Muster grants them."""

import secrets

from confluent_kafka.admin import NewTopic

from muster_contracts import SERVICES, Topic, topics
from muster_operator.access.administrator import Administrator
from muster_operator.access.application import Access, applied
from tests.support.eventually import eventually
from tests.support.kafka_identities import Identity
from tests.support.secured_kafka import SecuredKafka

FACTS: dict[str, Topic] = {name: topic for name, topic in topics().items() if topic.owner in SERVICES}


class House:
    """The topics on the secured Kafka, each with a record, and whoever tries to do something."""

    def __init__(self, kafka: SecuredKafka, administrator: Administrator, prefix: str) -> None:
        self.kafka = kafka
        self.administrator = administrator
        self.prefix = prefix
        # Each test has identities of its own.
        self.principal = f"User:{prefix}{{name}}"
        self.names = {prefix + name: topic for name, topic in FACTS.items()}

    async def identity(self, name: str) -> Identity:
        """Somebody of the test's own, with a password."""
        password = secrets.token_hex(8)
        await self.administrator.set_password(self.prefix + name, password)
        return Identity(self.kafka.librdkafka(self.prefix + name, password))

    async def has(self, access: Access) -> None:
        """Wait until the broker knows of all of it: the controller answers before."""

        async def known() -> bool:
            return access.differences(await self.administrator.acls()) == []

        await eventually(known)


async def furnished(secured: SecuredKafka, prefix: str) -> House:
    """A house whose services have their ACLs."""
    administrator = secured.administrator()
    made = House(secured, administrator, prefix)
    created = administrator.client.create_topics([NewTopic(name, 1, 1) for name in made.names])
    for future in created.values():
        await administrator.ask(future)
    access = Access.wanted(prefix, made.principal, None, sandbox=False)
    await applied(administrator, access, prune=False)
    await made.has(access)
    return made
