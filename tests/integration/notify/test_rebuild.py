"""The directory, built anew from its topics: what a relay repeated late is not what a person is."""

from datetime import UTC, datetime

from muster_contracts.entitlements import PersonErased, PersonRecorded
from muster_local.rebuild.directory import Directory
from muster_local.target import Target
from tests.integration.notify.conftest import Notify
from tests.support.topics import Producer

NOW = datetime(2025, 8, 6, tzinfo=UTC)


def person(name: str) -> PersonRecorded:
    return PersonRecorded(agency_id="NASA", subject_ref="sub_1", name=name, email="ada@nasa.gov")


async def test_what_was_repeated_behind_what_came_after_it_does_not_count(notify: Notify) -> None:
    """An erased person stays erased; in a transaction the topic ends with a marker that is no record."""
    service = notify.service
    settings = service.runtime.settings
    async with Producer(settings.kafka_bootstrap, settings.topic_prefix, f"{settings.topic_prefix}tests") as producer:
        first, _ = await producer.publish([person("Ada"), person("Ada Lovelace")], NOW)
        await producer.put(first, person("Ada"))
        assert await rebuilt(notify) == ["Ada Lovelace"]
        await producer.publish([PersonErased(agency_id="NASA", subject_ref="sub_1")], NOW)
        await producer.put(first, person("Ada"))
        assert await rebuilt(notify) == []
        [back] = await producer.publish([person("Countess")], NOW)
        assert back.sequence == 4
        assert await rebuilt(notify) == ["Countess"]


async def rebuilt(notify: Notify) -> list[str]:
    """The names in the directory that was built anew; the one that was kept all along agrees with it."""
    await notify.settle()
    service = notify.service
    target = Target({}, "", service.access.admin_dsn, service.runtime.settings.kafka_bootstrap, service.topic_prefix)
    async with Directory.open(target) as projection:
        await projection.replay()
        assert await projection.compare() == []
        rows = await service.admin.fetch("select name from rebuilt.directory")
        return [row["name"] for row in rows]
