"""Print every seat fact, with aiokafka (asyncio). Run one instance; a second one is refused."""

import asyncio
import os

from aiokafka import AIOKafkaConsumer
from connection import for_aiokafka
from log_ids import log_ids, members
from reading import TOPIC_IN_KAFKA, Log, Printer, refuse_a_second, stopping

GROUP = os.environ.get("GROUP", "seats-with-aiokafka")


async def main() -> None:
    """Read from the beginning, and commit each record once it is handled."""
    printer = Printer(Log(GROUP, *await log_ids(TOPIC_IN_KAFKA)))
    refuse_a_second(GROUP, await members(GROUP))
    consumer = AIOKafkaConsumer(
        TOPIC_IN_KAFKA,
        **for_aiokafka(),
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        refuse_a_second(GROUP, await members(GROUP) - 1)
        printer.waits()
        async for record in consumer:
            printer.take(record.headers, record.value, record.key)
            await consumer.commit()


if __name__ == "__main__":
    with stopping():
        asyncio.run(main())
