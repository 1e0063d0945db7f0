"""Closes aiokafka's clients whatever they are doing, even if no broker answers. aiokafka's own `stop` does not.

This depends on aiokafka's internals: run tests/faults after every update of aiokafka.
"""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

# How long to wait for a client's tasks to react to a cancellation.
CANCEL_SECONDS = 1.0

# The methods of aiokafka's sender that run as tasks which only the sender knows.
_REQUESTS = ("_send_produce_req", "_do_add_partitions_to_txn", "_do_txn_commit")

# The tasks of a consumer's coordinator. Which of them exist depends on the kind of coordinator.
_COORDINATION = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer. A cancellation cuts the wait short and is raised.

    While aiokafka closes, it swallows a cancellation, or raises the cancellation of its own fetches. So the close runs
    in its own task, which nobody else cancels. aiokafka's fetch task can also swallow a cancellation while partitions
    are being assigned, so it is canceled again until the close ends.
    """
    closing = asyncio.create_task(_close(consumer))
    try:
        while not (await asyncio.wait([closing], timeout=CANCEL_SECONDS))[0]:
            fetcher: Any = consumer._fetcher
            if fetcher is not None:
                fetcher._fetch_task.cancel()
    except asyncio.CancelledError:
        closing.cancel()
        closing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else retrieves it
        await asyncio.wait([closing], timeout=CANCEL_SECONDS)
        raise
    closing.result()


async def _close(consumer: AIOKafkaConsumer) -> None:
    try:
        with suppress(asyncio.CancelledError):
            await consumer.stop()
    finally:
        coordinator: Any = consumer._coordinator
        fetcher: Any = consumer._fetcher
        tasks = [getattr(coordinator, name, None) for name in _COORDINATION]
        if fetcher is not None:
            tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
        left = [task for task in tasks if task is not None and not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await consumer._client.close()


class ProducerCloser:
    """Closes a producer at once, whatever it is doing. Create it before the producer starts.

    aiokafka's own `stop` waits until everything is sent; if it may not wait, it leaves tasks and sockets open.
    """

    def __init__(self, kafka: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._requests: set[asyncio.Task[Any]] = set()
        for name in _REQUESTS:
            self._track(name)

    async def close(self) -> None:
        """Abort all connections and end all tasks. Whether batches in flight arrive is unknown."""
        kafka = self._kafka
        kafka._closed = True
        sender = kafka._sender.sender_task
        while tasks := [t for t in (*self._requests, sender) if t is not None and not t.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        for connection in kafka.client._conns.values():
            if connection._writer is not None:
                connection._writer.transport.abort()  # a plain close would wait for the buffer to be written
        await kafka.client.close()
        transaction = kafka._txn_manager._transaction_waiter
        if transaction is not None and transaction.done() and not transaction.cancelled():
            transaction.exception()  # mark it as retrieved; the sender raised it too

    def _track(self, name: str) -> None:
        request = getattr(self._kafka._sender, name)

        async def tracked(*arguments: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._requests.add(task)
            try:
                return await request(*arguments)
            finally:
                self._requests.discard(task)

        setattr(self._kafka._sender, name, tracked)
