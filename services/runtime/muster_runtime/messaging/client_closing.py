"""Closes aiokafka's clients, whatever they are doing, also while no broker answers. Its own `stop` does not.

Tried at every update of aiokafka: tests/faults needs it.
"""

import asyncio
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

# How long a client's tasks may take to see that they are canceled.
CANCEL_SECONDS = 1.0

# What aiokafka's sender starts as tasks that only the sender knows.
_REQUESTS = ("_send_produce_req", "_do_add_partitions_to_txn", "_do_txn_commit")

# The tasks of a consumer's coordinator, which has not all of them in each case.
_COORDINATION = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer. A cancellation ends it early, and is raised.

    While aiokafka closes, it swallows a cancellation, or raises the one of its own fetches. So a task closes it that
    nobody else cancels. Its fetches, too, swallow a cancellation while partitions are assigned.
    """
    closing = asyncio.create_task(_close(consumer))
    try:
        while not (await asyncio.wait([closing], timeout=CANCEL_SECONDS))[0]:
            fetcher: Any = consumer._fetcher
            if fetcher is not None:
                fetcher._fetch_task.cancel()
    except asyncio.CancelledError:
        closing.cancel()
        closing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else asks for it
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
    """Closes a producer at once, whatever it is doing.

    aiokafka's own `stop` waits until everything is sent, and leaves tasks and sockets behind where it is not allowed
    to wait. Make it before the producer is started.
    """

    def __init__(self, kafka: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._requests: set[asyncio.Task[Any]] = set()
        for name in _REQUESTS:
            self._track(name)

    async def close(self) -> None:
        """Cut all connections and end all tasks. What was in flight may arrive or not."""
        kafka = self._kafka
        kafka._closed = True
        sender = kafka._sender.sender_task
        while tasks := [t for t in (*self._requests, sender) if t is not None and not t.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        for connection in kafka.client._conns.values():
            if connection._writer is not None:
                connection._writer.transport.abort()  # a close would wait until what is buffered is taken
        await kafka.client.close()
        transaction = kafka._txn_manager._transaction_waiter
        if transaction is not None and transaction.done() and not transaction.cancelled():
            transaction.exception()  # its sender has it too

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
