"""Keep the latest value of each agency and key of a compacted topic, with the official CloudEvents SDK.

A record without a value is a tombstone: what was known under its key is erased. The SDK has no place for that: it takes
a tombstone for an event without data. So the value is looked at first. A tombstone erases what is its own agency's
alone.
"""

from collections.abc import Iterable
from typing import Any

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event


def keep(
    latest: dict[tuple[bytes, bytes], Any], headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes
) -> None:
    """Put a record's data in the place of what was known of its agency and key, or forget it at a tombstone."""
    attributes = dict(headers)
    place = attributes["ce_partitionkey"], key
    if value is None:
        latest.pop(place, None)
        return
    event = from_binary_event(KafkaMessage(headers=attributes, key=key, value=value))
    latest[place] = event.get_data()
