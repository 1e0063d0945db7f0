"""Print every seat fact, with aiokafka (asyncio). For one instance: a second is refused."""

import asyncio
import os

from aiokafka import AIOKafkaConsumer
from log_ids import log_ids, members
from reading import BOOTSTRAP, TOPIC_IN_KAFKA, Log, Printer, refuse_a_second, stopping

GROUP = os.environ.get("GROUP", "seats-with-aiokafka")


async def main() -> None:
    """Read from the beginning, and commit each record once it is handled."""
    printer = Printer(Log(GROUP, *await log_ids(BOOTSTRAP, TOPIC_IN_KAFKA)))
    refuse_a_second(GROUP, await members(BOOTSTRAP, GROUP))
    consumer = AIOKafkaConsumer(
        TOPIC_IN_KAFKA,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        refuse_a_second(GROUP, await members(BOOTSTRAP, GROUP) - 1)
        printer.waits()
        async for record in consumer:
            printer.take(record.headers, record.value, record.key)
            await consumer.commit()


if __name__ == "__main__":
    with stopping():
        asyncio.run(main())
