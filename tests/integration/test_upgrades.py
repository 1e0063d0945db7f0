"""A migration of a database that holds data: what it says of the rows that are there already."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from muster_contracts.entitlements import AccessMode
from muster_entitlements.domain.windows import Window
from muster_entitlements.repository.catalogs import Adoption, find_adoption
from muster_entitlements.repository.pools import find_pool
from muster_entitlements.repository.seat_trials import find_begun
from muster_entitlements.repository.windows import find_used_trials, list_windows
from tests.integration.conftest import BEFORE, Upgrade, is_forced


async def test_contacts_that_nothing_needs_are_erased_as_well(upgraded: Upgrade) -> None:
    rows = """
        insert into agency (id, name, branch) values
        ('EPA', 'EPA', 'executive'), ('DOE', 'DOE', 'executive'), ('NSF', 'NSF', 'executive');
        insert into contact (contact_ref, agency_id, role, name, email, recorded_at) values
        ('con_1', 'EPA', 'administrator', 'A', 'a@epa.gov', '2025-08-06Z'),
        ('con_2', 'DOE', 'administrator', 'B', 'b@doe.gov', '2025-08-06Z'),
        ('con_3', 'DOE', 'administrator', 'C', 'c@doe.gov', '2025-09-06Z'),
        ('con_4', 'DOE', 'signer', 'D', 'd@doe.gov', '2025-08-06Z'),
        ('con_5', 'DOE', 'signer', 'E', 'e@doe.gov', '2025-08-07Z'),
        ('con_6', 'NSF', 'signer', 'F', 'f@nsf.gov', '2025-08-06Z'),
        ('con_7', 'EPA', 'signer', 'G', 'g@epa.gov', '2025-10-01Z');
        insert into enrollment (
            enrollment_id, agency_id, number, state, seats, requested_start, contact_ref, submitted_at, changed_at,
            closed_at, closing_reason, version
        ) values
        (
            'enr_1', 'EPA', 1, 'withdrawn', 5, '2025-08-06Z', 'con_1', '2025-08-06Z', '2025-09-01Z',
            '2025-09-01Z', 'left', 2
        ),
        (
            'enr_2', 'DOE', 1, 'withdrawn', 5, '2025-08-06Z', 'con_2', '2025-08-06Z', '2025-09-01Z',
            '2025-09-01Z', 'left', 2
        ),
        ('enr_3', 'DOE', 2, 'submitted', 5, '2025-09-06Z', 'con_3', '2025-09-06Z', '2025-09-06Z', null, null, 1);
        insert into data_use_acceptance (
            acceptance_id, agency_id, terms_version, signer_ref, evidence_sha256, accepted_at
        ) values
        ('acc_1', 'DOE', '2025-07', 'con_4', repeat('0', 64), '2025-08-06Z'),
        ('acc_2', 'DOE', '2025-08', 'con_5', repeat('0', 64), '2025-08-07Z'),
        ('acc_3', 'NSF', '2025-08', 'con_6', repeat('0', 64), '2025-08-06Z'),
        ('acc_4', 'EPA', '2025-08', 'con_7', repeat('0', 64), '2025-10-01Z');
    """
    async with upgraded("enrollment", rows) as connection:
        deadlines = await connection.fetch("select kind, agency_id, subject, due_at from deadline order by subject")
        assert [tuple(row) for row in deadlines] == [
            ("contact-erasure", "EPA", "con_1", datetime(2025, 9, 2, tzinfo=UTC)),  # the agency has left
            ("contact-erasure", "DOE", "con_2", datetime(2025, 9, 6, tzinfo=UTC)),  # replaced
            ("contact-erasure", "DOE", "con_4", datetime(2025, 8, 7, tzinfo=UTC)),
            ("contact-erasure", "NSF", "con_6", datetime(2025, 11, 4, tzinfo=UTC)),  # signed ahead
            ("contact-erasure", "EPA", "con_7", datetime(2025, 12, 30, tzinfo=UTC)),
        ]
        forced = await connection.fetch(
            """
            select relname from pg_class
            where relname in ('contact', 'data_use_acceptance', 'enrollment', 'deadline') and not relforcerowsecurity
            """
        )
        assert forced == []


async def test_a_draft_follows_its_term_into_the_fiscal_year_of_washington(upgraded: Upgrade) -> None:
    rows = """
        insert into term (id, agency_id, enrollment_id, number, state, starts_at, ends_at, price_minor, currency) values
        ('trm_1', 'EPA', 'enr_1', 1, 'scheduled', '2025-10-01T03:00Z', '2026-10-01T03:00Z', 100, 'USD');
        insert into invoice (id, agency_id, term_id, state, fiscal_year, amount_minor, currency) values
        ('inv_1', 'EPA', 'trm_1', 'draft', 2026, 100, 'USD');
    """
    async with upgraded("billing", rows) as connection:
        assert str(await connection.fetchval("select first_day from term")) == "2025-09-30"
        assert await connection.fetchval("select fiscal_year from invoice") == 2025


async def test_streams_that_have_been_parked_for_long_know_how_many_records_wait(upgraded: Upgrade) -> None:
    rows = """
        insert into parked_stream (consumer_group, topic, agency_id, parked_at, reason, records)
        select 'notify', 't', agency_id, '2025-08-06Z', 'broken', records
        from (values ('EPA', 0), ('DOE', 1)) as s (agency_id, records);
        insert into parked_event (
            consumer_group, topic, agency_id, kafka_partition, kafka_offset, header_names, header_values, parked_at
        )
        select 'notify', 't', agency_id, 0, kafka_offset, '{}', '{}', '2025-08-06Z'
        from (values ('EPA', 1), ('EPA', 2), ('EPA', 4), ('DOE', 3)) as e (agency_id, kafka_offset);
    """
    async with upgraded("notify", rows) as connection:
        counted = await connection.fetch("select agency_id, records from parked_stream order by agency_id")
        assert [tuple(row) for row in counted] == [("DOE", 1), ("EPA", 3)]
        assert await is_forced(connection, "parked_stream", "parked_event")


async def test_seats_and_windows_of_long_ago_are_as_they_were(upgraded: Upgrade) -> None:
    rows = """
        insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap) values
        ('EPA', 'enr_1', '2025-08-06Z', '2026-08-06Z', 5);
        insert into feature_window (
            agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after,
            monthly_quota_after
        ) values
        ('EPA', 'enr_1', 'research', 'win_1', true, 'unlimited', '2025-08-06Z', '2025-10-05Z', 'quota', 25),
        ('EPA', 'enr_1', 'models', 'win_2', false, 'unlimited', '2025-08-06Z', '2026-08-06Z', 'none', null);
        insert into seat (agency_id, seat_id, subject_ref, state, assigned_at, activated_at, idle_since) values
        ('EPA', 'a', 'sub_a', 'assigned', '2025-08-06Z', null, null),
        ('EPA', 'b', 'sub_b', 'active', '2025-08-06Z', '2025-08-09Z', null),
        ('EPA', 'c', 'sub_c', 'active', '2025-08-06Z', '2025-08-09Z', '2025-09-01'),
        ('EPA', 'd', 'sub_d', 'revoked', '2025-08-06Z', null, null);
    """
    async with upgraded("entitlements", rows) as connection:
        since = await connection.fetch("select seat_id, idle_since::text from seat order by seat_id")
        assert [tuple(row) for row in since] == [
            ("a", "2025-08-06"),
            ("b", "2025-08-09"),
            ("c", "2025-09-01"),
            ("d", None),
        ]
        began_at = datetime(2025, 8, 9, tzinfo=UTC)
        assert await find_begun(connection, {"EPA": ["sub_a", "sub_b", "sub_d"]}) == {"EPA": {"sub_b": began_at}}

        # What was one kind of trial is the default of those that there are now: version 1 of the catalog has it so.
        pool = await find_pool(connection, "EPA")
        assert pool is not None
        assert (pool.time_zone, pool.generation) == (None, 1)
        windows = await list_windows(connection, "EPA", "enr_1")
        trial = Window(
            window_id="win_1",
            agency_id="EPA",
            enrollment_id="enr_1",
            feature="research",
            trial=True,
            mode=AccessMode.UNLIMITED,
            starts_at=pool.starts_at,
            ends_at=datetime(2025, 10, 5, tzinfo=UTC),
            mode_after=AccessMode.QUOTA,
            monthly_quota_after=25,
            catalog_number=1,
        )
        of_term = replace(
            trial,
            window_id="win_2",
            feature="models",
            trial=False,
            ends_at=pool.ends_at,
            mode_after=AccessMode.NONE,
            monthly_quota_after=None,
        )
        assert windows == {"research": trial, "models": of_term}
        assert await find_used_trials(connection, "EPA", pool.ends_at, pool.zone) == {"research": timedelta(days=60)}
        assert await is_forced(connection, "feature_window", "pool", "seat")


async def test_what_waits_for_a_term_comes_then_and_no_later_version_with_it(upgraded: Upgrade) -> None:
    """Code of the earlier release continues beside the new one, and leaves the columns that it does not know."""
    rows = """
        insert into pool (agency_id, enrollment_id, starts_at, ends_at, cap) values
        ('EPA', 'enr_1', '2025-08-06Z', '2027-08-06Z', 5);
        insert into agency_catalog (agency_id, number, next_number) values ('EPA', 1, 2), ('DOE', 2, null);
        insert into deadline (kind, agency_id, subject, due_at) values
        ('catalog-next-term', 'EPA', 'EPA', '2026-08-06Z'), ('catalog-next-term', 'DOE', 'DOE', '2026-08-06Z');
        insert into feature_window (
            agency_id, enrollment_id, feature, window_id, trial, mode, starts_at, ends_at, mode_after, anchor, revision
        ) values
        ('EPA', 'enr_1', 'a', 'win_1', true, 'unlimited', '2025-08-06Z', '2025-10-05Z', 'none', 'program', 2),
        ('EPA', 'enr_1', 'b', 'win_2', true, 'unlimited', '2025-08-06Z', '2025-10-05Z', 'none', 'program', 1);
    """
    async with upgraded("entitlements", rows, before="20250822") as connection:
        assert await find_adoption(connection, "EPA") == Adoption(1, 2, datetime(2026, 8, 6, tzinfo=UTC))
        assert await find_adoption(connection, "DOE") == Adoption(2, None)
        later = datetime(2027, 8, 6, tzinfo=UTC)
        await connection.execute("update deadline set due_at = $1", later)
        for number, next_number, next_after in ((2, None, None), (2, 3, later)):
            await connection.execute("update agency_catalog set number = $1, next_number = $2", number, next_number)
            assert await find_adoption(connection, "EPA") == Adoption(number, next_number, next_after)
        windows = await list_windows(connection, "EPA", "enr_1")
        assert [windows[feature].start_corrected for feature in "ab"] == [True, False]
        assert await is_forced(connection, "agency_catalog", "deadline", "feature_window")


async def test_the_url_of_a_deleted_webhook_is_forgotten(upgraded: Upgrade) -> None:
    rows = """
        insert into webhook (id, agency_id, url, sealed_secret, state, created_at) values
        ('whk_1', 'EPA', 'https://epa.gov/hook/s3cret', null, 'deleted', '2025-08-06Z'),
        ('whk_2', 'EPA', 'https://epa.gov/hook/other', 'x', 'enabled', '2025-08-06Z');
    """
    async with upgraded("notify", rows) as connection:
        kept = await connection.fetch("select id, url from webhook order by id")
        assert [tuple(row) for row in kept] == [("whk_1", ""), ("whk_2", "https://epa.gov/hook/other")]
        assert await is_forced(connection, "webhook")


async def test_a_quota_that_is_used_up_has_been_since_the_agencys_latest_instant(upgraded: Upgrade) -> None:
    rows = """
        insert into agency_instant (agency_id, latest) values ('EPA', '2025-08-20Z');
        insert into quota_use (agency_id, subject_ref, feature, used, charged, quota, starts_at, ends_at) values
        ('EPA', '', 'a', 9, 9, 9, '2025-08-01Z', '2025-09-01Z'),
        ('EPA', 'sub_a', 'a', 9, 0, 9, '2025-08-01Z', '2025-09-01Z'),
        ('EPA', 'sub_b', 'a', 9, 9, 9, '2025-07-01Z', '2025-08-01Z');
        insert into quota_grant (
            agency_id, grant_id, feature, subject_ref, amount, spent, priority, starts_at, granted_at
        ) values
        ('EPA', 'qgr_1', 'a', '', 2, 2, 0, '2025-08-06Z', '2025-08-06Z'),
        ('EPA', 'qgr_2', 'a', '', 2, 1, 0, '2025-08-06Z', '2025-08-06Z');
    """
    latest = datetime(2025, 8, 20, tzinfo=UTC)
    async with upgraded("entitlements", rows, before="20250829") as connection:
        kept = await connection.fetch("select subject_ref, charged, recorded_from from quota_use_history")
        assert [tuple(row) for row in kept] == [("", 9, latest)]
        spent = await connection.fetch("select spent_at from quota_grant order by grant_id")
        assert [row["spent_at"] for row in spent] == [latest, None]
        # So it is with what the earlier release writes during a rolling upgrade.
        later = latest + timedelta(days=1)
        await connection.execute("update agency_instant set latest = $1", later)
        await connection.execute("update quota_use set charged = 10 where subject_ref = 'sub_a'")
        await connection.execute("update quota_grant set spent = amount")
        new = "select subject_ref, charged from quota_use_history where recorded_from = $1"
        assert [tuple(row) for row in await connection.fetch(new, later)] == [("sub_a", 10)]
        spent = await connection.fetch("select spent_at from quota_grant order by grant_id")
        assert [row["spent_at"] for row in spent] == [latest, later]
        assert await is_forced(connection, "agency_instant", "quota_grant", "quota_use", "quota_use_history")


async def test_chunks_that_a_discarded_file_left_are_deleted(upgraded: Upgrade) -> None:
    rows = """
        insert into operation (
            agency_id, operation_id, kind, state, dry_run, on_limit, directory, actor, correlation_id, created_at
        )
        values ('EPA', 'bat_1', 'import', 'receiving', false, 'fill', false, 'a', 'c', '2025-08-06Z');
        insert into operation_chunk (agency_id, operation_id, number, first_line, content) values
        ('EPA', 'bat_1', 0, 1, 'email'), ('EPA', 'bat_2', 3, 9, 'email'), ('EPA', 'bat_2', 4, 10, 'email');
    """
    async with upgraded("entitlements", rows, before="202508295") as connection:
        deadlines = await connection.fetch("select kind, agency_id, subject, due_at <= now() as due from deadline")
        assert [tuple(row) for row in deadlines] == [("operation-rows-forgotten", "EPA", "bat_2", True)]
        assert await is_forced(connection, "deadline", "operation", "operation_chunk")


@pytest.mark.parametrize("service", ["entitlements", "notify"])
async def test_the_other_services_upgrade(service: str, upgraded: Upgrade) -> None:
    async with upgraded(service, "select") as connection:
        assert await connection.fetchval("select count(*) from schema_migrations where version > $1", BEFORE) > 0
