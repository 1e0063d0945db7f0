"""The earlier release's code beside the schema that it does not know whole, and the rows that it leaves."""

from datetime import UTC, datetime

from muster_entitlements.repository.catalogs import Adoption, find_adoption
from muster_entitlements.repository.windows import list_windows
from tests.integration.conftest import Upgrade, is_forced


async def test_code_of_the_earlier_release_goes_on_beside_the_new_one(upgraded: Upgrade) -> None:
    """It does not know `next_after` and `start_corrected`: what it wrote before this migration, and what it writes."""
    rows = """
        insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap) values
        ('EPA', 'enr_1', '2025-08-06Z', '2027-08-06Z', 5), ('DOE', 'enr_2', '2025-08-06Z', '2027-08-06Z', 5),
        ('NSF', 'enr_3', '2025-08-06Z', '2026-08-07Z', 5);
        insert into agency_catalog (agency_id, number, next_number) values ('EPA', 1, 2), ('DOE', 1, null);
        insert into deadline (kind, agency_id, subject, due_at) values
        ('catalog-next-term', 'EPA', 'EPA', '2026-08-06Z'),
        ('catalog-next-term', 'DOE', 'DOE', '2026-08-06Z'), -- a trial follows then
        ('catalog-next-term', 'NSF', 'NSF', '2025-10-05Z');
        insert into agency_instant (agency_id, latest) values ('EPA', '2025-08-06Z');
        insert into feature_window (
            agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after, anchor
        )
        select 'EPA', 'enr_1', key, 'win_' || key, true, 'unlimited', '2025-08-06Z', '2025-10-05Z', 'none', 'program'
        from unnest(array['a', 'b', 'c', 'd']) as key;
        update feature_window set start_corrected = true where feature = 'd'; -- it replaced another one
        update agency_instant set latest = '2025-08-07Z';
        update feature_window set starts_at = '2025-08-08Z' where feature = 'a';
    """
    corrected = "update feature_window set starts_at = starts_at + interval '1 day', revision = 2 where feature = 'b'"
    replaced = "update feature_window set window_id = 'win_d', starts_at = '2025-08-09Z' where feature = 'b'"
    noted = """
        insert into agency_catalog (agency_id, number, next_number) values ($1, 1, 2)
        on conflict (agency_id) do update set number = excluded.number, next_number = excluded.next_number
    """

    async def which_are_corrected() -> list[bool]:
        windows = await list_windows(connection, "EPA", "enr_1")
        return [windows[feature].start_corrected for feature in "abcd"]

    async with upgraded("entitlements", rows, before="20250823") as connection:
        assert await which_are_corrected() == [True, False, False, False]
        await connection.execute(corrected)
        assert await which_are_corrected() == [True, True, False, False]
        await connection.execute("update feature_window set ends_at = ends_at + interval '1 day'")
        assert await which_are_corrected() == [True, True, False, False]
        await connection.execute(replaced)
        assert await which_are_corrected() == [True, False, False, False]

        for agency_id, ends_at in (("EPA", "2026-08-06"), ("DOE", "2027-08-06"), ("NSF", "2026-08-07")):
            if agency_id != "EPA":
                await connection.execute(noted, agency_id)
            waits = Adoption(1, 2, datetime.fromisoformat(ends_at).replace(tzinfo=UTC))
            assert await find_adoption(connection, agency_id) == waits
        assert await is_forced(connection, "agency_catalog", "feature_window", "feature_window_history", "pool")


async def test_deadlines_of_the_earlier_release_are_as_the_new_one_has_them(upgraded: Upgrade) -> None:
    """No seat's trial of a removed feature ends after its window, and copies learn of quotas that count otherwise."""
    rows = """
        insert into feature_window (
            agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after, anchor,
            seat_days, renewable
        )
        select 'EPA', 'enr_1', key, key, false, 'unlimited', '2025-08-06Z', ends_at, 'none', 'seat', 60, again
        from (
            values
            ('removed', '2999-08-06T12:00Z'::timestamptz, false),
            ('over', '2025-08-07Z', false),
            ('kept', '2999-08-06Z', true)
        ) as w (key, ends_at, again);
        insert into deadline (kind, agency_id, subject, due_at)
        select kind, 'EPA', subject, '2999-09-20Z'
        from unnest(array['removed', 'over', 'kept']) as subject
        cross join unnest(array['seat-trial-ends', 'seat-trials-ending-soon']) as kind;
        insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap, time_zone) values
        ('EPA', 'enr_1', '2025-08-06Z', '2999-08-06Z', 5, 'America/New_York'),
        ('DOE', 'enr_2', '2025-08-06Z', '2999-08-06Z', 5, null),
        ('NSF', 'enr_3', '2025-08-06Z', '2999-08-06Z', 5, 'America/New_York'),
        ('DOT', 'enr_4', '2025-08-06Z', '2999-08-06Z', 5, 'America/New_York');
        insert into quota_use (agency_id, subject_ref, feature, used, quota, starts_at, ends_at)
        select agency_id, subject_ref, 'a', 9, 9, '2025-08-06Z', ends_at
        from unnest(array['a', 'b']) as subject_ref
        cross join (
            values
            ('EPA', '2999-08-06Z'::timestamptz), ('DOE', '2999-08-06Z'), ('NSF', '2025-09-06Z'), ('DOT', '2999-08-06Z')
        ) as u (agency_id, ends_at);
        insert into deadline (kind, agency_id, subject, due_at) values
        ('quota-uses-told', 'DOT', 'DOT', '2999-08-06Z'), ('quota-uses-told', 'NSF', 'NSF', '2999-08-06Z');
    """
    async with upgraded("entitlements", rows, before="20250823") as connection:
        deadlines = await connection.fetch("select subject, kind, due_at::text from deadline where kind like 'seat%'")
        assert {tuple(row) for row in deadlines} == {
            ("removed", "seat-trial-ends", "2999-08-06 12:00:00+00"),
            ("removed", "seat-trials-ending-soon", "2999-07-23 00:00:00+00"),
            ("over", "seat-trial-ends", "2025-08-07 00:00:00+00"),
            ("over", "seat-trials-ending-soon", "2999-09-20 00:00:00+00"),  # finds nothing
            ("kept", "seat-trial-ends", "2999-09-20 00:00:00+00"),
            ("kept", "seat-trials-ending-soon", "2999-09-20 00:00:00+00"),
        }
        told = await connection.fetch(
            """
            select agency_id, subject from deadline
            where kind = 'quota-uses-told' and due_at between now() + interval '23 hours' and now() + interval '1 day'
            """
        )
        # Later than pods of the earlier release would handle it, which leave it alone where they move the agency's own.
        assert {tuple(row) for row in told} == {("EPA", "enr_1"), ("NSF", "enr_3"), ("DOT", "enr_4")}
        own = "select count(*) from deadline where kind = 'quota-uses-told' and due_at = '2999-08-06Z'"
        assert await connection.fetchval(own) == 2
        assert await is_forced(connection, "deadline", "quota_use")
