"""Print every seat fact, with FastStream. Run one instance; a second one is refused."""

import asyncio
import os
from typing import Any

from connection import BOOTSTRAP, PROTOCOL, USERNAME, password, tls
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.security import BaseSecurity, SASLScram512
from log_ids import log_ids, members
from reading import TOPIC_IN_KAFKA, Log, Printer, refuse_a_second, stopping

GROUP = os.environ.get("GROUP", "seats-with-faststream")


async def as_it_is(message: KafkaMessage) -> Any:
    """Keep FastStream from decoding the value: the contracts do that."""
    return message


def security() -> BaseSecurity | None:
    """TLS and what identifies this subscriber, as FastStream takes them."""
    if PROTOCOL == "PLAINTEXT":
        return None
    return SASLScram512(USERNAME, password(), tls()) if PROTOCOL == "SASL_SSL" else BaseSecurity(tls())


async def main() -> None:
    """Read from the beginning until it is asked to stop, or a record cannot be handled."""
    printer = Printer(Log(GROUP, *await log_ids(TOPIC_IN_KAFKA)))
    refuse_a_second(GROUP, await members(GROUP))
    servers = BOOTSTRAP.split(",")  # FastStream takes one string for one broker
    broker = KafkaBroker(servers, security=security(), apply_types=False, allow_auto_create_topics=False, logger=None)
    failures: list[Exception] = []
    joined = asyncio.Event()

    async def once_joined() -> None:
        """FastStream reads as soon as it is a member; its records wait for this."""
        try:
            refuse_a_second(GROUP, await members(GROUP) - 1)
            printer.waits()
        except Exception as error:
            failures.append(error)
            app.exit()
        finally:
            joined.set()

    app = FastStream(broker, logger=None, after_startup=[once_joined])

    @broker.subscriber(
        TOPIC_IN_KAFKA,
        group_id=GROUP,
        auto_offset_reset="earliest",
        # The default policy commits before the handler runs, so a record whose handler fails would be lost.
        ack_policy=AckPolicy.MANUAL,
        decoder=as_it_is,
    )
    async def on_record(message: KafkaMessage) -> None:
        """Handle one record, then commit it.

        FastStream continues after an error, and a later commit would skip the record, so nothing more is handled.
        """
        await joined.wait()
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

    await app.run()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    with stopping():
        asyncio.run(main())
