"""Converts Kafka's records for the applier: with the contracts' topic names, and each with its agency."""

from collections.abc import Mapping
from functools import lru_cache

from aiokafka import ConsumerRecord

from muster_contracts import is_agency_id, topics
from muster_runtime.messaging.record_reader import Record

# The one stream for all records without a valid agency, so that invalid keys do not create streams of their own.
UNKNOWN_AGENCY = "?"

# The longest agency ID. Longer keys are not decoded or cached.
AGENCY_BYTES = 20


class Records:
    """Converts consumed records. `names` maps topic names in Kafka to the contracts' names."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._compacted = {topic for topic in names.values() if topics()[topic].compacted}

    def read(self, consumed: "ConsumerRecord[bytes, bytes]") -> Record:
        """Convert a record for the applier."""
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
        """The agency of a record: its key, or on a compacted topic its partitionkey attribute."""
        raw = consumed.key
        if topic in self._compacted:
            raw = dict(consumed.headers).get("ce_partitionkey")
        return _agency_named(raw) if raw and len(raw) <= AGENCY_BYTES else UNKNOWN_AGENCY


@lru_cache(maxsize=1024)
def _agency_named(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    return name if is_agency_id(name) else UNKNOWN_AGENCY
