"""What the tests of the example subscribers share."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics
from tests.contract.subscribers.examples import SCHEMAS, SEATS, Subscriber, Topic


@pytest.fixture
async def topic(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[Topic]:
    await create_topics(kafka_at(kafka_bootstrap), topic_prefix, [SEATS], partitions=2)
    filled = Topic(kafka_bootstrap, topic_prefix)
    await filled.start()
    yield filled
    await filled.stop()
    await delete_topics(kafka_at(kafka_bootstrap), [filled.name])


@pytest.fixture
def run(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def running(command: list[str], **environment: str) -> AsyncIterator[Subscriber]:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={
                **os.environ,
                "MUSTER_KAFKA_BOOTSTRAP": f"{kafka_bootstrap},{kafka_bootstrap}",  # as a list of several brokers
                "MUSTER_TOPIC_PREFIX": topic_prefix,
                "SCHEMAS": str(SCHEMAS),
                "GROUP": topic_prefix + "example",
                "STATE": str(tmp_path / "positions.json"),
                **environment,
            },
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        subscriber = Subscriber(process)
        readers = [asyncio.create_task(subscriber.read()), asyncio.create_task(subscriber.read_stderr())]
        try:
            yield subscriber
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()
            await asyncio.gather(*readers)

    return running


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"test_subscriber_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name}")
    server, _, options = postgres.partition("?")
    yield f"{server.rsplit('/', 1)[0]}/{name}?{options}".rstrip("?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()
