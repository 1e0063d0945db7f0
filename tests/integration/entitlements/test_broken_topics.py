"""A client whose topic was recreated, or has a record that it cannot read or must not."""

from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer

from muster_contracts import topics
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_contracts.testing import build, record
from muster_entitlements_client import Answer, NotReady, Verdict
from muster_local.servers import kafka_at
from muster_operator.topics import create_topics, delete_topics
from muster_runtime.projection import Difference
from tests.integration.entitlements.conftest import Entitlements
from tests.integration.entitlements.test_snapshots import following, swap
from tests.support.eventually import eventually
from tests.support.services import PARTITIONS


async def test_a_client_answers_nothing_after_a_record_that_it_cannot_read(entitlements: Entitlements) -> None:
    service = entitlements.service
    await entitlements.enroll(cap=10)
    subject = (await entitlements.assign(1)).json()["subject_ref"]
    told = Answer(Verdict.REFUSED, "no_seat", None, 3)

    async def ask(*_: str | None) -> Answer:
        return told

    async with following(entitlements, fallback=ask) as client:
        await eventually(lambda: len(client) == 1)
        assert (await client.check_or_ask(subject)).verdict == Verdict.ALLOWED
        newer = record(build(SubjectAccess))
        headers = [(name, value.replace(b".v1", b".v2")) for name, value in newer.headers]
        await service.producer.put_raw(SubjectAccess.topic, key=subject.encode(), value=newer.value, headers=headers)
        await service.publish(SubjectAccessErased(agency_id="NASA", subject_ref=subject))
        await eventually(lambda: client.failure is not None)
        with pytest.raises(NotReady, match="see `failure`"):
            client.check(subject)
        assert await client.check_or_ask(subject) == told


async def test_a_client_takes_nothing_of_an_aborted_transaction(entitlements: Entitlements) -> None:
    """Such as what a relay has written when another one fences it."""
    service = entitlements.service
    await entitlements.enroll(cap=10)
    seat = (await entitlements.assign(1)).json()
    aborted = record(build(SubjectAccess, subject_ref=seat["subject_ref"], revision=99))
    topic, options = service.topic_prefix + SubjectAccess.topic, service.runtime.kafka.options()
    async with following(entitlements) as client:
        async with AIOKafkaProducer(**options, transactional_id=f"{service.topic_prefix}fenced") as producer:
            await producer.begin_transaction()
            for partition in range(PARTITIONS):
                await producer.send_and_wait(topic, aborted.value, aborted.key, partition, headers=aborted.headers)
            await producer.abort_transaction()
        assert (await entitlements.post(f"seats/{seat['seat_id']}/activation")).status_code == 200
        await eventually(lambda: client.check(seat["subject_ref"]).reason == "seat_active")
        assert client.check(seat["subject_ref"]).revision < 99


async def test_a_client_starts_over_on_a_topic_that_was_recreated(entitlements: Entitlements) -> None:
    service = entitlements.service
    settings = service.runtime.settings
    await entitlements.enroll(cap=10)
    assert (await entitlements.assign(1)).status_code == 201
    [access] = await eventually(lambda: service.published(SubjectAccess))
    subject = access.data.subject_ref

    told = Answer(Verdict.ALLOWED, "window_open", None, 2)

    async def ask(*_: str | None) -> Answer:
        return told

    async with following(entitlements, max_staleness_seconds=60.0, fallback=ask) as client:
        assert client.check(subject, "deep-research").reason == "window_open"
        kafka = kafka_at(settings.kafka_bootstrap)
        await delete_topics(kafka, [settings.topic_prefix + AgencyAccess.topic])
        await create_topics(kafka, settings.topic_prefix, [topics()[AgencyAccess.topic]], partitions=PARTITIONS)
        await eventually(lambda: len(client) == 0)
        # It stays so, however often the empty topic is read to its end.
        follower = client._follower
        follower.failure = OSError()
        await eventually(lambda: follower.failure is None)
        with pytest.raises(NotReady):
            client.check(subject, "deep-research")
        assert client.staleness_seconds is None
        assert await client.check_or_ask(subject, "deep-research", agency_id="NASA") == told
        assert await swap(entitlements) == [Difference("NASA", "its own record and the record of 1 person")]

        async def answers() -> bool:
            with suppress(NotReady):
                return client.check(subject, "deep-research").reason == "window_open"
            return False

        await eventually(answers)
