"""How often commands, events and deadlines wait for Postgres: each round trip costs the latency of the network."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import httpx
import pytest

from muster_billing.bootstrap import build as build_billing
from muster_billing.settings import BillingSettings
from muster_contracts.entitlements import SeatAssigned, SeatRevoked
from muster_enrollment.bootstrap import build as build_enrollment
from muster_enrollment.settings import EnrollmentSettings
from muster_entitlements.bootstrap import build as build_entitlements
from muster_entitlements.settings import EntitlementsSettings
from muster_notify.bootstrap import build as build_notify
from muster_notify.settings import NotifySettings
from muster_runtime.scheduling.deadlines import Deadline, schedule
from muster_runtime.settings import Settings
from tests.integration.billing.conftest import START as BILLING_START
from tests.integration.billing.conftest import Billing
from tests.integration.billing.test_api import DOLLAR
from tests.integration.enrollment.program import REGISTER, Program, acceptance, authorization, enrollment
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.runtime.core.probe.service import build as build_probe
from tests.support.contexts import CONTEXT
from tests.support.databases import Databases
from tests.support.eventually import eventually
from tests.support.round_trips import RoundTrips
from tests.support.services import ServiceRunner


@pytest.fixture
async def trips(postgres: str) -> AsyncIterator[RoundTrips]:
    async with RoundTrips(postgres) as trips:
        yield trips


@pytest.fixture
async def databases(trips: RoundTrips) -> AsyncIterator[Databases]:
    """Every address that is made here goes by way of the proxy."""
    made = Databases(trips.address)
    yield made
    await made.drop_all()


async def of_request(
    trips: RoundTrips, role: str, request: Callable[[int], Awaitable[httpx.Response]], times: int = 3
) -> list[str]:
    """The round trips of the last of some requests that differ in nothing that counts: the pool is warm then."""
    before = 0
    for number in range(times):
        before = len(trips.of(role))
        response = await request(number)
        assert response.is_success, response.text
    return trips.of(role)[before:]


def limited(trips: list[str], limit: int) -> None:
    """Fails with the statements where there are more than allowed; what a connection prepares, once, is left out."""
    counted = [trip for trip in trips if not trip.startswith("prepare ")]
    listed = "\n".join(f"{number:2} {trip[:110]}" for number, trip in enumerate(counted, 1))
    assert counted, "nothing was counted"
    assert len(counted) <= limit, f"{len(counted)} round trips:\n{listed}"


async def test_a_seat_is_assigned_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    """One statement reads the pool and the person's seat."""
    service = await run_service(build_entitlements, EntitlementsSettings)
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=10)
    assigned = await of_request(
        trips, "entitlements_api", lambda number: entitlements.assign(number, key=f"key-{number}")
    )
    limited(assigned, 5)


async def test_a_use_is_consumed_in_four_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    """The statement that takes the lock reads all that the use depends on, and the next one counts it."""
    service = await run_service(build_entitlements, EntitlementsSettings)
    service.clock.move(START)
    entitlements = Entitlements(service)
    await entitlements.enroll(cap=10)
    await entitlements.assign(1)

    async def consume(_number: int) -> httpx.Response:
        return await entitlements.post("usage/consume", {"subject": "person.1@nasa.gov", "feature": "deep-research"})

    limited(await of_request(trips, "entitlements_api", consume), 4)


async def test_a_payment_is_recorded_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    service = await run_service(build_billing, BillingSettings)
    service.clock.move(BILLING_START)
    billing = Billing(service)

    async def pay(number: int) -> httpx.Response:
        agency_id = f"AGENCY-{number}"
        await billing.enroll(agency_id)
        invoice = await billing.only("invoices", agency_id)
        before.append(len(trips.of("billing_api")))
        headers = {"Idempotency-Key": f"key-{number}"}
        paid: httpx.Response = await billing.pay(invoice["invoice_id"], DOLLAR, agency_id, headers=headers)
        return paid

    before: list[int] = []
    await of_request(trips, "billing_api", pay)
    limited(trips.of("billing_api")[before[-1] :], 5)


async def test_an_authorization_is_recorded_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    """One statement reads the agency's standing, and the enrollment is saved with the other writes."""
    program = Program(await run_service(build_enrollment, EnrollmentSettings))
    program.service.clock.move(START)
    await program.import_register(REGISTER)
    await program.post("NASA", "enrollments", enrollment())
    await program.post("NASA", "data-use-acceptances", acceptance())

    async def record(number: int) -> httpx.Response:
        body = authorization(START - timedelta(days=number + 1))
        return await program.post("NASA", "authorizations", body, **{"Idempotency-Key": f"key-{number}"})

    limited(await of_request(trips, "enrollment_api", record), 5)


async def test_a_webhook_is_added_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    service = await run_service(build_notify, NotifySettings)

    async def add(number: int) -> httpx.Response:
        return await service.client.post(
            "/v1/agencies/NASA/webhooks",
            json={"url": f"https://receiver.example/{number}"},
            headers={"Idempotency-Key": f"key-{number}"},
        )

    limited(await of_request(trips, "notify_api", add), 5)


async def test_events_are_applied_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    """Those of the transaction; where reading continues is kept by one more, when the effects are there."""
    probe = await run_service(build_probe, Settings)

    async def applied(count: int) -> bool:
        return bool(await probe.admin.fetchval("select count(*) from effect") == count)

    for number in range(3):
        event = SeatAssigned(agency_id="NASA", seat_id=f"seat_{number}", subject_ref="sub_1")
        await probe.publish(event)
        await eventually(lambda: applied(number + 1))  # noqa: B023 - awaited within the turn
    limited(trips.transaction("insert into effect"), 5)
    kept = [trip for trip in trips.of("probe_worker") if trip.startswith("with") and "into consumed_partition" in trip]
    assert len(kept) <= 3, "one for each batch"


async def test_a_deadline_is_handled_in_five_round_trips(run_service: ServiceRunner, trips: RoundTrips) -> None:
    probe = await run_service(build_probe, Settings)
    database, now = probe.runtime.database, probe.clock.now()

    async def handled(count: int) -> bool:
        return bool(
            await probe.admin.fetchval("select last_sequence from stream where topic = $1", SeatRevoked.topic) == count
        )

    for number in range(3):
        async with database.write("NASA", context=CONTEXT) as uow:
            schedule(uow, [Deadline("revoke", "NASA", f"seat_{number}", now)])
        await eventually(lambda: handled(number + 1))  # noqa: B023 - awaited within the turn
    # One more limits the wait for a lock that was held when the scheduler looked, as by a transaction that just ends.
    handling = [trip for trip in trips.transaction("delete from deadline") if "lock_timeout" not in trip]
    limited(handling, 5)


async def test_a_connection_goes_back_to_its_pool_without_a_round_trip(
    run_service: ServiceRunner, trips: RoundTrips
) -> None:
    probe = await run_service(build_probe, Settings, roles=frozenset())
    await probe.runtime.database.pool.fetchval("select 'given back'")
    (asked,) = [session.trips for session in trips.sessions if "select 'given back'" in session.trips]
    assert asked[-1] == "select 'given back'"
