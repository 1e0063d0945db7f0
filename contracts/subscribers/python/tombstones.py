"""Keep the latest value of each key of a compacted topic, with the official CloudEvents SDK.

A record without a value is a tombstone: what was known under its key is erased. The SDK has no place for that: it takes
a tombstone for an event without data. So the value is looked at first.
"""

from collections.abc import Iterable
from typing import Any

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event


def keep(latest: dict[bytes, Any], headers: Iterable[tuple[str, bytes]], value: bytes | None, key: bytes) -> None:
    """Put a record's data in the place of what was known under its key, or forget it at a tombstone."""
    if value is None:
        latest.pop(key, None)
        return
    event = from_binary_event(KafkaMessage(headers=dict(headers), key=key, value=value))
    latest[key] = event.get_data()
