"""The client of the snapshots where it has no copy, or an old one: it asks the service over HTTP."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient

from muster_contracts.entitlements import SubjectAccess
from muster_entitlements_client import EntitlementsClient, HttpChecks, NotReady, Stale, follower
from muster_entitlements_client.log_ids import LogIds, log_ids
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.lives import DAY
from tests.integration.entitlements.test_snapshots import following
from tests.support.eventually import eventually
from tests.support.muster_commands import served


async def test_the_client_asks_the_service_what_its_copy_cannot_answer(entitlements: Entitlements) -> None:
    """It cannot reach Kafka, or its copy is too old."""
    await entitlements.enroll(cap=10)
    assert (await entitlements.assign(1)).status_code == 201
    [access] = await eventually(lambda: entitlements.service.published(SubjectAccess))
    subject = access.data.subject_ref
    async with served(entitlements.service) as url:
        ask = HttpChecks(url, token=lambda: entitlements.service.token("entitlements:read"))
        now = entitlements.service.clock.now
        async with EntitlementsClient({"bootstrap_servers": "127.0.0.1:1"}, fallback=ask, now=now) as client:
            with pytest.raises(NotReady):
                client.check(subject)
            with pytest.raises(NotReady):
                await client.check_or_ask(subject)  # of which agency?
            answer = await client.check_or_ask(subject, "deep-research", agency_id="NASA")
            assert (answer.verdict, answer.reason, answer.valid_until) == ("allowed", "window_open", START + 60 * DAY)
            assert (await client.check_or_ask(subject, agency_id="NASA")).reason == "seat_assigned"
            await eventually(lambda: client.failure)
        async with following(entitlements, fallback=ask, max_staleness_seconds=0.0) as stale:
            with pytest.raises(Stale, match="more than 0 s"):
                stale.check(subject)
            assert (await stale.check_or_ask(subject, "deep-research")).revision == 2


async def test_a_connection_that_uvloop_has_closed_is_no_defect(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment after a reset, its transport raises a bare RuntimeError on a write; and over TLS it closes late."""
    await entitlements.enroll(cap=10)
    broken = ["unable to perform operation on <TCPTransport closed=True>"]

    async def fails_once(client: AIOKafkaClient, topic: str) -> LogIds:
        found = await log_ids(client, topic)
        if broken:
            raise RuntimeError(broken.pop())
        return found

    stop: Callable[[AIOKafkaConsumer], Awaitable[None]] = AIOKafkaConsumer.stop
    stops = itertools.count()

    async def takes_long_once(consumer: AIOKafkaConsumer) -> None:
        await stop(consumer)
        if next(stops) == 0:
            await asyncio.Event().wait()

    monkeypatch.setattr(follower, "log_ids", fails_once)
    monkeypatch.setattr(AIOKafkaConsumer, "stop", takes_long_once)
    monkeypatch.setattr(follower, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.01)
    async with asyncio.timeout(20), following(entitlements) as client:
        assert client.failure is None
    assert not broken


async def test_a_copy_is_as_old_as_the_ends_that_it_has_read(
    entitlements: Entitlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came while it read up to them may be missing."""
    await entitlements.enroll(cap=10)
    read_to, begun = follower.Follower._read_to, [0.0]

    async def noted(self: follower.Follower, *read: Any) -> None:
        begun.append(time.monotonic())
        await read_to(self, *read)

    monkeypatch.setattr(follower.Follower, "_read_to", noted)
    async with following(entitlements) as client:
        assert (client._follower._complete_at or 0.0) <= begun[-1]
