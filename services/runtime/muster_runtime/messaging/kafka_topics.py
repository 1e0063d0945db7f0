"""Compares the topics that a service needs, as they are in Kafka, with the contracts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from muster_contracts import Topic, topics
from muster_contracts.topics import MIN_IN_SYNC, min_in_sync
from muster_runtime.errors import RetryableError
from muster_runtime.messaging.client_internals import brokers_of, enable_rebootstrap, forbidden_topics
from muster_runtime.messaging.connection import KafkaConnection
from muster_runtime.settings import Settings


class TopicRepartitioned(RetryableError):
    """A topic's number of partitions differs from its contract, so an agency's events would be in two partitions."""

    def __init__(self, topic: str, there: int, needed: int) -> None:
        super().__init__(f"the topic {topic} has {there} partitions and needs {needed}: its streams lose their order")


@dataclass(frozen=True)
class TopicFaults:
    """What is wrong with topics.

    `repartitioned` maps a topic to the reason, and `unsafe` to the settings that would lose events.
    """

    missing: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    repartitioned: Mapping[str, str] = field(default_factory=dict)
    unsafe: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def losses(self) -> list[str]:
        """The settings that would lose events."""
        return [f"{name} has {fault}" for name, faults in self.unsafe.items() for fault in faults]

    @property
    def unpublishable(self) -> Mapping[str, str]:
        """The topics to which nothing may be sent, and why."""
        return {
            **{name: _missing(name) for name in self.missing},
            **self.repartitioned,
            **{name: f"{name} would lose events" for name in self.unsafe},
        }

    @property
    def reasons(self) -> list[str]:
        """All faults, in human-readable form."""
        return [
            *map(_missing, self.missing),
            *(f"Kafka denies Describe on the topic {name}" for name in self.forbidden),
            *self.repartitioned.values(),
            *(f"events would be lost: {loss}" for loss in self.losses),
        ]


@dataclass(frozen=True)
class _LiveTopic:
    """A topic in Kafka: how many partitions it has, and the smallest number of replicas of any of them."""

    partitions: int
    replicas: int


class KafkaTopics:
    """Checks topics in Kafka, named as in the contracts. `faults` is the result of the last check."""

    def __init__(self, kafka: KafkaConnection, settings: Settings, service: str, names: Iterable[str]) -> None:
        needed = {settings.topic_prefix + name: topics()[name] for name in sorted(names)}
        self._needed = needed
        self._partitions = {name: partitions_of(topic.name, settings) for name, topic in needed.items()}
        self._admin = AIOKafkaAdminClient(**kafka.options(), client_id=f"{service}-monitor")
        enable_rebootstrap(self._admin)
        self.faults = TopicFaults()

    async def start(self) -> None:
        """Connect. Raises KafkaError if Kafka cannot be reached."""
        await self._admin.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._admin.close()

    async def look(self) -> TopicFaults:
        """Check the topics. Raises KafkaError if Kafka cannot be reached."""
        there = await self._live()
        absent = [name for name in self._needed if name not in there]
        forbidden = await forbidden_topics(self._admin, absent) if absent else []
        configs = await self._configs(there)
        self.faults = TopicFaults(
            missing=[name for name in absent if name not in forbidden],
            forbidden=[*forbidden, *(name for name in there if name not in configs)],
            repartitioned={
                name: str(TopicRepartitioned(name, live.partitions, self._partitions[name]))
                for name, live in there.items()
                if live.partitions != self._partitions[name]
            },
            unsafe={
                name: faults
                for name, entries in configs.items()
                if (faults := list(_faults(self._needed[name], there[name], entries)))
            },
        )
        return self.faults

    @property
    def brokers(self) -> Sequence[tuple[str, int]]:
        """The host and port of each broker, as Kafka last named them."""
        return brokers_of(self._admin)

    async def _configs(self, there: Iterable[str]) -> dict[str, Sequence[Mapping[str, Any]]]:
        """The settings of each topic that this process may describe."""
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, name, configs={**self._needed[name].settings, MIN_IN_SYNC: None})
            for name in there
        ]
        answers = await self._admin.describe_configs(resources) if resources else []
        found = [resource for answer in answers for resource in answer.to_object()["resources"]]
        return {each["resource_name"]: each["config_entries"] for each in found if not each["error_code"]}

    async def _live(self) -> dict[str, _LiveTopic]:
        found = {topic["topic"]: topic["partitions"] for topic in await self._admin.describe_topics()}
        return {
            name: _LiveTopic(len(partitions), min(len(partition["replicas"]) for partition in partitions))
            for name in self._needed
            if (partitions := found.get(name))
        }


def _missing(name: str) -> str:
    return f"the topic {name} is missing"


def _faults(topic: Topic, live: _LiveTopic, entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The settings of a topic that differ from what they must be."""
    for entry in entries:
        setting, value = entry["config_names"], entry["config_value"]
        if setting == MIN_IN_SYNC:
            if int(value) < (least := min_in_sync(live.replicas)):
                yield f"{setting}={value} with {live.replicas} copies and needs {least}"
        elif value != (needed := topic.settings[setting]):
            yield f"{setting}={value} and needs {needed}"


def partitions_of(topic: str, settings: Settings) -> int:
    """How many partitions a topic must have: as many as its contract says, or fewer in a sandbox."""
    described = topics()[topic].partitions
    return min(settings.topic_partitions or described, described)
