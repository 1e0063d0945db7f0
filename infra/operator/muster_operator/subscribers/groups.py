"""The lag of subscribers' consumer groups."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from muster_operator.access.administrator import Administrator


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group, and its lag: the unread records in the partitions for which it has committed an offset."""

    name: str
    lag: int


async def groups_of(administrator: Administrator, prefix: str, names: Iterable[str]) -> dict[str, list[Group]]:
    """The groups of each subscriber: those whose names start with the subscriber's name and a dot."""
    listed = await administrator.ask(administrator.client.list_consumer_groups())
    if listed.errors:  # the other brokers do not know all groups
        raise administrator.failure(KafkaException(listed.errors[0]))
    found: dict[str, list[Group]] = defaultdict(list)
    beginnings = {f"{prefix}{name}.": name for name in names}
    for group in sorted(listing.group_id for listing in listed.valid):
        for beginning, name in beginnings.items():
            if group.startswith(beginning):
                found[name].append(Group(group, await _lag(administrator, group)))
    return found


async def _lag(administrator: Administrator, group: str) -> int:
    asked = administrator.client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    positions = [place for place in (await administrator.ask(asked[group])).topic_partitions if place.offset >= 0]
    places = {TopicPartition(place.topic, place.partition): OffsetSpec.latest() for place in positions}
    ends = administrator.client.list_offsets(places) if places else {}
    end_of = {(place.topic, place.partition): (await administrator.ask(end)).offset for place, end in ends.items()}
    return sum(max(0, end_of[place.topic, place.partition] - place.offset) for place in positions)
