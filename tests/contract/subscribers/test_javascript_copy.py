"""The JavaScript copy that follows the snapshot topic with kafkajs, against a real Kafka."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from muster_contracts.testing import Record, build, record
from muster_local.node import NODE, installed
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics
from tests.contract.subscribers.examples import EXAMPLES
from tests.support.eventually import eventually

PAGE = Path(__file__).parents[3] / "docs" / "entitlements.md"
SNAPSHOTS = topics()[AgencyAccess.topic]
AGENCY, PERSON = record(build(AgencyAccess)), record(build(SubjectAccess))
SUSPENDED = record(build(SubjectAccess, seat="suspended"))

# Prints the reason of a check whenever it changes.
PROGRAM = f"""
    import kafkajs from "kafkajs";
    import SnappyCodec from "kafkajs-snappy";
    import {{ follow }} from "./following.mjs";
    kafkajs.CompressionCodecs[kafkajs.CompressionTypes.Snappy] = SnappyCodec;
    const {{ BROKER, TOPIC, GROUP }} = process.env;
    const kafka = new kafkajs.Kafka({{ brokers: [BROKER], logLevel: kafkajs.logLevel.NOTHING }});
    const copy = await follow(kafka, TOPIC, GROUP, (error) => console.error(`ended: ${{error.constructor.name}}`));
    let last;
    setInterval(() => {{
      let reason;
      try {{
        ({{ reason }} = copy().check({json.dumps(PERSON.key.decode())}, null, "2025-09-01T00:00:00Z"));
      }} catch (error) {{
        reason = error.constructor.name;
      }}
      if (reason !== last) console.log(JSON.stringify(reason));
      last = reason;
    }}, 1);
    process.once("SIGINT", () => process.exit(0));
"""


class Relay:
    """Fills the topic in transactions, as entitlements' relay does."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.name = prefix + SNAPSHOTS.name
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=prefix + "relay")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        async with self._producer:
            yield self

    async def put(self, records: Sequence[Record]) -> None:
        async with self._producer.transaction():
            for item in records:
                await self._producer.send(self.name, value=item.value, key=item.key, headers=item.headers, partition=0)


@pytest.fixture
async def snapshots(kafka_bootstrap: str, topic_prefix: str) -> AsyncIterator[Relay]:
    kafka = kafka_at(kafka_bootstrap)
    await create_topics(kafka, topic_prefix, [SNAPSHOTS], partitions=2)
    async with Relay(kafka_bootstrap, topic_prefix).running() as relay:
        yield relay
    await delete_topics(kafka, [relay.name])


async def test_a_process_answers_only_from_a_whole_copy_even_beside_another_and_after_a_restart(
    snapshots: Relay, run: Callable[..., Any], kafka_bootstrap: str, topic_prefix: str
) -> None:
    example = installed(EXAMPLES / "javascript")
    program = example / f"{topic_prefix}copy.mjs"
    program.write_text(PROGRAM)
    command = [str(NODE), str(program)]
    where = {"BROKER": kafka_bootstrap, "TOPIC": snapshots.name, "GROUP": topic_prefix + "copy"}
    await snapshots.put([AGENCY, PERSON])  # before the start: a copy of an empty topic is whole, and knows nobody
    try:
        async with run(command, **where) as first:
            await eventually(lambda: first.facts == ["NotReady", "seat_assigned"], timeout=40)
            async with run(command, **where) as second:
                await eventually(lambda: second.facts == ["NotReady", "seat_assigned"], timeout=40)
                await snapshots.put([SUSPENDED])
                for each in (first, second):
                    await eventually(lambda each=each: each.facts[-1] == "seat_suspended", timeout=40)
        async with run(command, **where) as restarted:
            await eventually(lambda: len(restarted.facts) > 1, timeout=40)
            assert restarted.facts == ["NotReady", "seat_suspended"], restarted.stderr
            await snapshots.put([replace(SUSPENDED, value=b"{")])
            await eventually(lambda: restarted.facts[2:] == ["NotReady"], timeout=40)
            await eventually(lambda: "ended: Unreadable" in restarted.stderr, timeout=40)
        assert "no_seat" not in first.facts + second.facts
    finally:
        program.unlink()


async def test_the_program_in_the_documentation_runs(
    snapshots: Relay, run: Callable[..., Any], kafka_bootstrap: str, topic_prefix: str
) -> None:
    (shown,) = re.findall(r"```js\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for example, real in {"kafka:9092": kafka_bootstrap, SNAPSHOTS.name: snapshots.name}.items():
        assert example in shown
        shown = shown.replace(example, real)
    # The service, which answers once the copy is ready.
    service = """
        process.once("SIGINT", () => process.exit(0));
        globalThis.fetch = async (address) => {
          console.log(JSON.stringify(new URL(address).searchParams.get("feature")));
          while (!copy().ready) await new Promise(setImmediate);
          return Response.json({ verdict: "refused" });
        };
    """
    program = installed(EXAMPLES / "javascript") / f"{topic_prefix}page.mjs"
    program.write_text(f"{service}{shown}console.log(JSON.stringify(copy().ready));")
    try:
        async with run([str(NODE), str(program)], KAFKAJS_LOG_LEVEL="nothing") as started:
            await eventually(lambda: started.facts == ["deep-research"], timeout=40)
            await snapshots.put([AGENCY, PERSON])
            await eventually(lambda: started.facts == ["deep-research", True], timeout=40)
    finally:
        program.unlink()
