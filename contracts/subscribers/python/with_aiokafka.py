"""Print every seat fact, with aiokafka (asyncio)."""

import asyncio

from aiokafka import AIOKafkaConsumer
from reading import BOOTSTRAP, GROUP, PREFIX, TOPIC, Printer


async def main() -> None:
    """Read from the beginning, and commit each record once it is handled."""
    printer = Printer()
    consumer = AIOKafkaConsumer(
        PREFIX + TOPIC,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        async for record in consumer:
            printer.take(record.headers, record.value, record.key)
            await consumer.commit()


if __name__ == "__main__":
    asyncio.run(main())
