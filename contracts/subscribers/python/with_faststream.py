"""Print every seat fact, with FastStream."""

import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from reading import BOOTSTRAP, GROUP, PREFIX, TOPIC, Printer

broker = KafkaBroker(BOOTSTRAP, apply_types=False, allow_auto_create_topics=False, logger=None)
app = FastStream(broker, logger=None)
printer = Printer()
failures: list[Exception] = []


async def as_it_is(message: KafkaMessage) -> Any:
    """Keep FastStream from decoding the value: the contracts do that."""
    return message


@broker.subscriber(
    PREFIX + TOPIC,
    group_id=GROUP,
    auto_offset_reset="earliest",
    # The default policy commits before the handler has run, and would lose what it fails on.
    ack_policy=AckPolicy.MANUAL,
    decoder=as_it_is,
)
async def on_record(message: KafkaMessage) -> None:
    """Handle one record, then commit it.

    FastStream goes on after an error, and a later commit would go past the record: so nothing is handled after it.
    """
    record = message.raw_message
    if failures or isinstance(record, tuple):
        return
    try:
        printer.take(record.headers, record.value, record.key)
    except Exception as error:  # whatever it is, it ends the program
        failures.append(error)
        app.exit()
        return
    await message.ack()


async def main() -> None:
    """Run until it is told to stop, or a record cannot be handled."""
    await app.run()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    asyncio.run(main())
