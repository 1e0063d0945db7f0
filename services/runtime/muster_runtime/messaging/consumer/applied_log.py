"""Logs applied batches: at once after a quiet second, otherwise as one summary per second."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

import structlog

# Under load there are hundreds of batches a second.
_EVERY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class AppliedLog:
    """Logs how many records of each topic were applied, and in how many batches.

    `names` maps topic names in Kafka to the contracts' names.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._records: Counter[str] = Counter()
        self._batches = 0
        self._pause: asyncio.TimerHandle | None = None

    def note(self, topics: Iterable[str]) -> None:
        """Note a batch, given the Kafka topic of each of its records."""
        self._records.update(topics)
        self._batches += 1
        if self._pause is None:
            self._write()

    def close(self) -> None:
        """Log what is left."""
        if self._batches:
            self._write()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _write(self) -> None:
        topics = {self._names[topic]: count for topic, count in sorted(self._records.items())}
        _log.info("batch_applied", topics=topics, batches=self._batches)
        self._records.clear()
        self._batches = 0
        self._pause = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if self._batches:
            self._write()
