"""A database that has lost commits, beside the topics: what of its outbox is published already."""

import tracemalloc

from muster_contracts.entitlements import SeatAssigned
from muster_runtime.restored import published_runs
from tests.support.services import RunningService

TOPIC = "muster.entitlements.seat"


async def test_what_is_on_its_topic_already_is_found_in_an_outbox_of_any_size(idle_probe: RunningService) -> None:
    """The topic has something of three runs; another position of it was given out a second time."""
    now = idle_probe.clock.now()
    first = await idle_probe.admin.fetchval(
        """
        with run as (
            insert into outbox (
                topic, agency_id, epoch, first_sequence, type, time, correlation_id, recorded_at, events, payloads
            )
            select $1, 'NASA', 1, 500 * number + 1, 'seat.assigned', $2, 'cor_' || number, $2, 500, '{}'
            from generate_series(0, 399) as number
            returning id
        )
        select min(id) from run
        """,
        *(TOPIC, now),
    )
    event = SeatAssigned(agency_id="NASA", seat_id="a", subject_ref="sub_1")
    (envelope,) = await idle_probe.publish(event, time=now)
    for sequence, correlation_id in ((1, "cor_0"), (700, "cor_1"), (1_001, "cor_1"), (199_999, "cor_399")):
        published = envelope._replace(sequence=sequence, id=f"{sequence}", correlation_id=correlation_id)
        await idle_probe.producer.put(published, event)
    settings = idle_probe.runtime.settings
    tracemalloc.start()
    found = await published_runs(idle_probe.runtime.database, settings.kafka_bootstrap, settings.topic_prefix)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [first, first + 1, first + 399]
    assert peak < 5_000_000
