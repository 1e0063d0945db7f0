"""Without any one of its ACLs a service cannot do its work: Muster grants the minimum."""

import asyncio
from collections.abc import Callable

from confluent_kafka.admin import NewTopic

from muster_contracts import SERVICES, topics
from muster_operator.access.acls import Acl, Kind, Operation, acls_of_services, fence_of, principal_of, produces
from muster_operator.access.administrator import Administrator
from tests.support.eventually import eventually
from tests.support.kafka_house import House, furnished
from tests.support.kafka_identities import Identity
from tests.support.secured_kafka import SecuredKafka


async def test_without_any_one_of_its_acls_a_service_cannot_do_all(secured: SecuredKafka, topic_prefix: str) -> None:
    house = await furnished(secured, topic_prefix)
    people = {principal_of(service, house.principal): await house.identity(service) for service in SERVICES}
    acls = acls_of_services(topics().values(), prefix=house.prefix, principal=house.principal)
    for name, topic in house.names.items():
        fence = fence_of(house.prefix, topic.owner) if topic.compacted else None
        assert await asyncio.to_thread(people[principal_of(topic.owner, house.principal)].write, [name], fence) == {
            name: ""
        }
    await reported(house)

    async def without_each(principal: str) -> None:
        own = [acl for acl in acls if acl.principal == principal]
        some = next(acl.name for acl in own if acl.name in house.names and not house.names[acl.name].compacted)
        for acl in own:
            await without(house.administrator, people[principal], acl, some)

    await asyncio.gather(*map(without_each, people))


async def reported(house: House) -> None:
    """Create the topics that others write, and let one of them write a record to each."""
    others = [topic for topic in topics().values() if topic.producers == "others"]
    writer, principal = await house.identity("reporter"), principal_of("reporter", house.principal)
    client = house.administrator.client
    for future in client.create_topics([NewTopic(house.prefix + topic.name, 1, 1) for topic in others]).values():
        await house.administrator.ask(future)
    await house.administrator.add(
        [acl for topic in others for acl in produces(principal, topic, house.prefix, "reporter")]
    )

    async def written() -> bool:
        names = [house.prefix + topic.name for topic in others]
        return await asyncio.to_thread(writer.write, names) == dict.fromkeys(names, "")

    await eventually(written)


async def without(administrator: Administrator, identity: Identity, acl: Acl, some: str) -> None:
    """Remove an ACL: what it allows is refused until it is back. The topic `some` may be read, and has a record."""
    attempts: dict[tuple[Kind, Operation], Callable[[], str]] = {
        (Kind.TOPIC, Operation.WRITE): lambda: identity.write([acl.name])[acl.name],
        (Kind.TOPIC, Operation.READ): lambda: identity.read([acl.name])[acl.name],
        (Kind.TOPIC, Operation.DESCRIBE_CONFIGS): lambda: identity.look(acl.name),
        (Kind.GROUP, Operation.READ): lambda: identity.join(acl.name, some),
        (Kind.TRANSACTIONAL_ID, Operation.WRITE): lambda: identity.fence(acl.name),
    }
    attempt = attempts[acl.kind, acl.operation]

    async def refused() -> bool:
        return (await asyncio.to_thread(attempt)).endswith("_AUTHORIZATION_FAILED")

    async def done() -> bool:
        return await asyncio.to_thread(attempt) == ""

    await administrator.remove([acl])
    await eventually(refused)
    await administrator.add([acl])
    await eventually(done)
