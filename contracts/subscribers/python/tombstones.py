"""Keep the latest value of each key of a compacted topic, with the official CloudEvents SDK.

A record without a value is a tombstone: erase what is stored under its key. The SDK does not support tombstones: it
treats one as an event without data. So check the value first. A tombstone erases nothing of another agency. Kafka keeps
one record per key, whatever its agency, and so does this copy.
"""

from collections.abc import Iterable
from typing import Any

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event


def keep(
    latest: dict[bytes, tuple[bytes, Any]], headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes
) -> None:
    """Store a record's agency and data under its key; a tombstone of the same agency erases them."""
    attributes = dict(headers)
    agency = attributes["ce_partitionkey"]
    if value is not None:
        event = from_binary_event(KafkaMessage(headers=attributes, key=key, value=value))
        latest[key] = agency, event.get_data()
    elif key in latest and latest[key][0] == agency:
        del latest[key]
