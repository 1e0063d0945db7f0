"""What the trials of seats store: nothing for a seat that is imported, and a deadline for all that begin."""

from datetime import timedelta

from muster_entitlements.handlers.seat_trials import SEAT_TRIAL_ENDS, SEAT_TRIALS_ENDING_SOON
from tests.integration.entitlements.conftest import START, Entitlements
from tests.integration.entitlements.files import file_of, sums
from tests.integration.entitlements.test_catalog import publish
from tests.integration.entitlements.test_seat_trials import CANVAS
from tests.integration.entitlements.test_trials import pass_time
from tests.integration.entitlements.test_usage import report, used


async def test_an_import_stores_nothing_for_trials_and_all_that_begin_share_a_deadline(
    entitlements: Entitlements,
) -> None:
    """For each feature: the next end, and the next notice."""
    await publish(entitlements, [CANVAS, CANVAS | {"key": "drawings"}], "new-agencies")
    await entitlements.enroll(cap=12_000)
    assert sums(await entitlements.import_file(file_of(12_000)))[1] == 12_000
    admin = entitlements.service.admin
    deadlines = """
        select d.kind, w.feature, count(*)
        from deadline as d
        left join feature_window as w on w.window_id = d.subject
        where d.kind like 'seat-trial%'
        group by d.kind, w.feature
        order by d.kind, w.feature
    """
    assert await admin.fetchval("select count(*) from seat_trial") == 0
    assert await admin.fetch(deadlines) == []

    seats = await admin.fetch("select subject_ref from seat limit 200")
    at = START + timedelta(hours=1)
    await pass_time(entitlements, at)
    uses = [used(number, seat["subject_ref"], at, feature="canvas") for number, seat in enumerate(seats)]
    assert (await report(entitlements, *uses)).json()["counted"] == 200
    assert await admin.fetchval("select count(*) from seat where trial_began_at is not null") == 200
    assert await admin.fetchval("select count(*) from seat_trial") == 0
    assert [tuple(row) for row in await admin.fetch(deadlines)] == [
        (kind, feature, 1) for kind in (SEAT_TRIAL_ENDS, SEAT_TRIALS_ENDING_SOON) for feature in ("canvas", "drawings")
    ]
