"""What each role of a service may do: its policies and rights in the schema, its password, and temporary objects."""

from urllib.parse import urlsplit

import asyncpg
import pytest

from muster_contracts import SERVICES
from muster_operator.databases.provisioning import Access, password_of, provision

# Tables without an agency that have something of all agencies, which the API does not need.
WORKERS_ALONE = {
    "consumed_partition",
    "consumed_topic",
    "passed_record",
    "usage_deferred",
    "usage_offset",
    "usage_parked",
}

# The policies of the runtime's roles that do not name the reader's agencies, or the agencies that are locked.
OTHER_POLICIES = {
    # What a catalog has once it is published, and the program's own facts, are for every agency.
    ("catalog_version", "everyone_reads_what_is_published"),
    ("fact_event", "everyone_reads_of_the_program"),
    # Who reads holds no lock: the API records reads of its own agencies, the worker those of parked use.
    ("personal_read", "reader_insert"),
    ("personal_read", "worker_insert"),
}


# What the services' tables rely on: nobody changes what was booked, accepted, or attempted, and the API knows nobody.
FORBIDDEN = {
    "billing": {
        (role, table, right)
        for role in ("api", "worker")
        for table in ("ledger_transaction", "ledger_entry", "payment")
        for right in ("update", "delete")
    },
    "enrollment": {
        (role, "data_use_acceptance", right) for role in ("api", "worker") for right in ("update", "delete")
    },
    "notify": {("api", "delivery_attempt", "update"), ("worker", "delivery_attempt", "update")}
    | {("api", "directory", right) for right in ("select", "insert", "update", "delete")},
}


async def test_every_policy_names_the_readers_agencies_or_the_locked_ones(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    policies = await admin.fetch(
        """
        select tablename, policyname, cmd, roles::text[] as roles, coalesce(qual, '') as qual,
            coalesce(with_check, '') as with_check
        from pg_policies
        where schemaname = $1
        """,
        service,
    )
    api, worker = f"{service}_api", f"{service}_worker"
    wrong = set()
    for policy in policies:
        roles, command = set(policy["roles"]), policy["cmd"]
        reads = command in {"SELECT", "UPDATE", "ALL"} and api in roles
        writes = command in {"INSERT", "UPDATE", "ALL"} and roles & {api, worker}
        deletes = command in {"DELETE", "ALL"} and api in roles
        if (
            (reads and "muster.agency" not in policy["qual"])
            or (writes and "locked_agencies()" not in policy["with_check"])
            or (deletes and "locked_agencies()" not in policy["qual"])
            or "public" in roles
        ):
            wrong.add((policy["tablename"], policy["policyname"]))
    assert wrong == {each for each in OTHER_POLICIES if each[0] in {policy["tablename"] for policy in policies}}


async def test_the_api_role_does_not_read_what_has_no_agency_and_is_of_all(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    rows = await admin.fetch(
        """
        select relname, has_any_column_privilege($1 || '_api', oid, 'select') as is_read
        from pg_class
        where relnamespace = $1::regnamespace and relname = any($2)
        """,
        service,
        list(WORKERS_ALONE),
    )
    expected = {name for name in WORKERS_ALONE if service == "entitlements" or not name.startswith("usage_")}
    assert {row["relname"] for row in rows} == expected
    assert [row["relname"] for row in rows if row["is_read"]] == []


async def test_no_role_has_a_right_that_its_tables_forbid(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    granted = await admin.fetch(
        """
        select role, relname, privilege
        from pg_class
        cross join unnest(array['api', 'worker']) as role
        cross join unnest(array['select', 'insert', 'update', 'delete']) as privilege
        where
            relnamespace = $1::regnamespace and relkind = 'r'
            and (
                has_table_privilege($1 || '_' || role, oid, privilege)
                or (privilege <> 'delete' and has_any_column_privilege($1 || '_' || role, oid, privilege))
            )
        """,
        service,
    )
    assert FORBIDDEN.get(service, set()) & {tuple(row) for row in granted} == set()


async def test_the_roles_passwords_are_kept_as_scram(service: str, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
    rows = await admin.fetch(
        "select rolpassword from pg_authid where rolname = any($1)",
        [f"{service}_{role}" for role in ("owner", "api", "worker")],
    )
    assert [row[0][:14] for row in rows] == ["SCRAM-SHA-256$"] * 3


async def test_a_workers_temporary_view_does_not_run_as_the_owner(service: str, access: Access) -> None:
    """The worker may create temporary objects, which stand in for all that a path without pg_temp finds."""
    worker = await asyncpg.connect(access.worker_dsn)
    try:
        await worker.execute(
            """
            create function pg_temp.note_who_runs_it() returns timestamptz language plpgsql as $$
            begin
                perform set_config('test.ran_as', current_user, false);
                return now();
            end $$;
            create view pg_temp.pg_stat_activity as
            select
                pg_temp.note_who_runs_it() as xact_start, current_database() as datname,
                'client backend'::text as backend_type, '1'::xid as backend_xmin, null::xid as backend_xid,
                'IPC'::text as wait_event_type, 'SyncRep'::text as wait_event,
                pg_temp.note_who_runs_it() as state_change;
            grant select on pg_temp.pg_stat_activity to public;
            """
        )
        for function in ("oldest_snapshot_seconds", "commit_wait_seconds"):
            await worker.fetchval(f"select {function}()")
            assert await worker.fetchval("select current_setting('test.ran_as', true)") is None, function
    finally:
        await worker.close()


async def test_another_services_role_of_the_same_database_cannot_read_the_schema(service: str, access: Access) -> None:
    """The default of `muster databases`: one database, and a schema for each service."""
    other = SERVICES[(SERVICES.index(service) + 1) % len(SERVICES)]
    database = urlsplit(access.admin_dsn).path.removeprefix("/")
    strangers = await provision(access.admin_dsn, database, other, password_of(access.admin_dsn))
    for dsn in (strangers.owner_dsn, strangers.api_dsn, strangers.worker_dsn):
        stranger = await asyncpg.connect(dsn)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for schema"):
                await stranger.fetch(f"select from {service}.audit")
        finally:
            await stranger.close()
