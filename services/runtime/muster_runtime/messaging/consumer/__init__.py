"""The consumer: one process's membership in its service's consumer group."""

from muster_runtime.messaging.consumer.member import Consumer
from muster_runtime.messaging.consumer.polling import POLL_MS
from muster_runtime.messaging.consumer.progress import ConsumerStuck

__all__ = ["POLL_MS", "Consumer", "ConsumerStuck"]
