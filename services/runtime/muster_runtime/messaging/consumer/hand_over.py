"""Handing partitions over to another process: the batch in hand is finished first, if that can be done in time."""

import asyncio
from collections.abc import Callable

import structlog
from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from muster_runtime.messaging.consumer.progress import Progress

# How long a member finishes its batch before it gives up its partitions. Their next owner may start while the batch
# runs: it waits for the agencies' locks, and skips what is applied.
HAND_OVER_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class BatchInHand(asyncio.Lock):
    """Held while a batch is applied: one at a time."""

    async def is_finished(self, within_seconds: float) -> bool:
        """Whether the batch is finished within so many seconds."""
        try:
            async with asyncio.timeout(within_seconds), self:
                return True
        except TimeoutError:
            return False


class DrainOnRevoke(ConsumerRebalanceListener):
    """Lets the batch in hand finish before its partitions go to another process; `forget` is called after that."""

    def __init__(self, batch: BatchInHand, progress: Progress, forget: Callable[[], None]) -> None:
        self._batch = batch
        self._progress = progress
        self._forget = forget

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Hand the partitions over."""
        if not await self._batch.is_finished(HAND_OVER_SECONDS):
            _log.warning("revoked_while_applying", partitions=len(revoked))
        self._progress.end()
        self._forget()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Have the poller ask where each partition begins before it is read."""
        self._progress.end()
        if not assigned:
            self._progress.begin({})
