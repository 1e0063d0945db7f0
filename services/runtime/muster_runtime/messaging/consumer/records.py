"""Kafka's records as the applier takes them: by the contracts' topics, each with its agency."""

from collections.abc import Mapping
from functools import lru_cache

from aiokafka import ConsumerRecord

from muster_contracts import is_agency_id, topics
from muster_runtime.messaging.record_reader import Record

# The stream of records that name no agency: worthless keys, however many, make no streams of their own.
UNKNOWN_AGENCY = "?"

# No agency's id is longer; a key of any length is not kept in memory.
AGENCY_BYTES = 20


class Records:
    """Makes records of what was consumed; `names` are the contracts' names of the topics by those in Kafka."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._compacted = {topic for topic in names.values() if topics()[topic].compacted}

    def read(self, consumed: "ConsumerRecord[bytes, bytes]") -> Record:
        """The record as the applier takes it."""
        topic = self._names[consumed.topic]
        return Record(
            topic,
            self._agency_of(consumed, topic),
            consumed.partition,
            consumed.offset,
            consumed.key,
            consumed.value,
            consumed.headers,
        )

    def _agency_of(self, consumed: "ConsumerRecord[bytes, bytes]", topic: str) -> str:
        """The agency of a record: its key, but on a compacted topic its partitionkey attribute."""
        raw = consumed.key
        if topic in self._compacted:
            raw = dict(consumed.headers).get("ce_partitionkey")
        return _agency_named(raw) if raw and len(raw) <= AGENCY_BYTES else UNKNOWN_AGENCY


@lru_cache(maxsize=1024)
def _agency_named(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    return name if is_agency_id(name) else UNKNOWN_AGENCY
