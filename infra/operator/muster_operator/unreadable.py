"""Names the records that a command skipped because Kafka's client cannot decode them."""

from rich.markup import escape

from muster_runtime.console import console
from muster_runtime.messaging.topic_log import TopicLog


def warn_unreadable(log: TopicLog) -> None:
    """Print them to stderr, if there are any."""
    if log.unreadable:
        names = ", ".join(map(str, log.unreadable))
        console(stderr=True).print(escape(f"{names} cannot be decoded: follow the runbook unreadable-record.md"))
