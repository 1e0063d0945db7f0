"""Hands partitions over to another process, after the batch in hand is finished if that takes little time."""

import asyncio
from collections.abc import Callable

import structlog
from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from muster_runtime.messaging.consumer.progress import Progress

# How long a member may take to finish its batch before it gives up its partitions. The next owner may start while the
# batch still runs: it waits for the agencies' locks and skips what has been applied.
HAND_OVER_SECONDS = 0.5

_log = structlog.get_logger(__name__)


class BatchInHand(asyncio.Lock):
    """Held while a batch is applied, so that batches run one at a time."""

    async def is_finished(self, within_seconds: float) -> bool:
        """Whether the batch finishes within this many seconds."""
        try:
            async with asyncio.timeout(within_seconds), self:
                return True
        except TimeoutError:
            return False


class DrainOnRevoke(ConsumerRebalanceListener):
    """Lets the batch in hand finish before its partitions go to another process, then calls `forget`."""

    def __init__(self, batch: BatchInHand, progress: Progress, forget: Callable[[], None]) -> None:
        self._batch = batch
        self._progress = progress
        self._forget = forget

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the batch in hand, then forget the partitions."""
        if not await self._batch.is_finished(HAND_OVER_SECONDS):
            _log.warning("revoked_while_applying", partitions=len(revoked))
        self._progress.end()
        self._forget()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Make the poller look up where each partition starts before it reads it."""
        self._progress.end()
        if not assigned:
            self._progress.begin({})
