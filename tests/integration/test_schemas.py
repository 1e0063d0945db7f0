"""Every service's schema: least privilege, and row-level security wherever a table has an agency."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from muster_contracts import SERVICES
from muster_operator.databases.provisioning import Access, access_to, drop, password_of, provision

SOURCES = Path(__file__).parents[2] / "services"

# What belongs to the program rather than to an agency: the register of agencies is public.
WITHOUT_AGENCY = {
    "schema_migrations",
    "lease",
    "epoch",
    "topic_comparison",
    "consumed_partition",
    "consumed_topic",
    "passed_record",
    "disk_probe",
    "delivery_purge",
    "history_purge",
    "agency",
    "agency_domain",
    "subject_key",
    "usage_deferred",
    "usage_offset",
    "usage_parked",
}

# How old the oldest snapshot is, and for how long commits have waited: figures of the server, none of an agency.
# The third deletes old audit rows, and shows only how many.
OWNERS_FUNCTIONS = {"oldest_snapshot_seconds", "commit_wait_seconds", "drop_sealed_audit"}

# This one makes and drops partitions, and shows nothing.
OWN_FUNCTIONS = {"entitlements": {"keep_usage_partitions", "lock_usage"}}


def test_no_two_migrations_of_a_service_bear_one_version(service: str) -> None:
    """The runtime's and its own are applied to one schema."""
    files = [
        file for source in ("runtime", service) for file in (SOURCES / source / f"muster_{source}/migrations").iterdir()
    ]
    versions = [file.name.partition("_")[0] for file in files]
    assert len(set(versions)) == len(versions)


async def test_a_history_has_the_columns_of_its_table_in_their_order(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """What keeps an old version copies the whole row, by position."""
    rows = await admin.fetch(
        """
        select table_name, array_agg(column_name::text order by ordinal_position) as columns
        from information_schema.columns
        where table_schema = $1
        group by table_name
        """,
        service,
    )
    columns = {row["table_name"]: row["columns"] for row in rows}
    for table in ("pool", "feature_window") if service == "entitlements" else ():
        assert columns[f"{table}_history"] == ["recorded_until", *columns[table]]


async def test_every_table_with_an_agency_forces_row_level_security(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    rows = await admin.fetch(
        """
        select
            c.relname, c.relrowsecurity and c.relforcerowsecurity as forced,
            exists (
                select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'agency_id'
            ) as has_agency
        from pg_class as c
        where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'p')
        """,
        service,
    )
    assert [row["relname"] for row in rows if row["has_agency"] and not row["forced"]] == []
    assert {row["relname"] for row in rows if not row["forced"]} <= WITHOUT_AGENCY


async def test_no_table_lets_the_api_role_update_what_it_does_not_read(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    rows = await admin.fetch(
        """
        select tablename, cmd, roles::text[] as roles, qual
        from pg_policies
        where schemaname = $1 and cmd in ('SELECT', 'UPDATE', 'ALL')
        """,
        service,
    )
    readable = {row["tablename"] for row in rows if row["cmd"] == "SELECT"}
    updates = {row["tablename"]: row for row in rows if row["cmd"] != "SELECT" and f"{service}_api" in row["roles"]}
    assert updates.keys() == readable
    for table, update in updates.items():
        assert update["roles"] == [f"{service}_api"], table
        assert "(agency_id = " in update["qual"], table
        assert "muster.agency" in update["qual"], table


async def test_the_runtime_roles_own_nothing_and_have_no_attribute(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    owners = await admin.fetch(
        "select distinct relowner::regrole::text from pg_class where relnamespace = $1::regnamespace", service
    )
    assert [row[0] for row in owners] == [f"{service}_owner"]
    for role in ("api", "worker"):
        row = await admin.fetchrow("select * from pg_roles where rolname = $1", f"{service}_{role}")
        assert row is not None
        attributes = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls")
        assert not any(row[attribute] for attribute in attributes)
        assert not await admin.fetchval("select has_schema_privilege($1, $2, 'create')", row["rolname"], service)
        assert not await admin.fetchval("select has_schema_privilege($1, 'public', 'create')", row["rolname"])


async def test_everybody_else_can_neither_connect_nor_make_anything(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """`public` is every role of the server."""
    databases = await admin.fetch(
        """
        select granted.privilege_type
        from pg_database as d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as granted
        where d.datname = current_database() and granted.grantee = 0
        """
    )
    assert databases == []
    schemas = await admin.fetch(
        """
        select n.nspname, granted.privilege_type
        from pg_namespace as n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as granted
        where n.nspname in ('public', $1) and granted.grantee = 0
        """,
        service,
    )
    assert schemas == []


async def test_no_view_or_function_of_the_owner_shows_the_rows_of_all_agencies(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """A view, and a `security definer` function, reads as its owner."""
    views = await admin.fetch(
        "select relname from pg_class where relnamespace = $1::regnamespace and relkind in ('v', 'm')", service
    )
    assert views == []
    functions = await admin.fetch(
        "select proname, proconfig from pg_proc where pronamespace = $1::regnamespace and prosecdef", service
    )
    assert {row["proname"] for row in functions} == OWNERS_FUNCTIONS | OWN_FUNCTIONS.get(service, set())
    paths = {
        row["proname"]: setting
        for row in functions
        for setting in row["proconfig"] or ()
        if setting.startswith("search_path=")
    }
    assert [row["proname"] for row in functions if not paths.get(row["proname"], "").endswith(", pg_temp")] == []


async def test_no_runtime_role_can_change_the_audit_or_its_seals(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    granted = await admin.fetch(
        """
        select r.role, t.name, p.privilege
        from unnest(array['api', 'worker']) as r (role)
        cross join unnest(array['audit', 'audit_seal']) as t (name)
        cross join unnest(array['insert', 'update', 'delete', 'truncate']) as p (privilege)
        where
            has_table_privilege($1 || '_' || r.role, $1 || '.' || t.name, p.privilege)
            or (
                p.privilege in ('insert', 'update')
                and has_any_column_privilege($1 || '_' || r.role, $1 || '.' || t.name, p.privilege)
            )
        order by 1, 2
        """,
        service,
    )
    assert [tuple(row) for row in granted] == [
        ("api", "audit", "insert"),
        ("worker", "audit", "insert"),
        ("worker", "audit_seal", "insert"),
    ]
    for role in ("api", "worker"):
        chooses_ids = "select has_column_privilege($1 || $2, $1 || '.audit', 'id', 'insert')"
        assert not await admin.fetchval(chooses_ids, service, f"_{role}")


async def test_another_services_role_cannot_connect(service: str, access: Access) -> None:
    other = SERVICES[(SERVICES.index(service) + 1) % len(SERVICES)]
    database = urlsplit(access.admin_dsn).path.removeprefix("/")
    await provision(access.admin_dsn, f"{database}_other", other, password_of(access.admin_dsn))
    try:
        stranger = access_to(access.admin_dsn, database, other, password_of(access.admin_dsn))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(stranger.worker_dsn)
    finally:
        await drop(access.admin_dsn, f"{database}_other")


async def test_no_row_has_a_date_that_would_stop_a_duty_for_all_agencies(
    service: str, admin: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    outbox = (
        "outbox (topic, agency_id, epoch, first_sequence, type, correlation_id, events, payloads, time, recorded_at) "
        "values ('t', 'NASA', 1, 1, 'x', 'c', 1, '{}', "
    )
    await admin.execute(f"set search_path to {service}")
    for at in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01"):
        for row in (
            f"deadline (kind, agency_id, subject, due_at) values ('x', 'NASA', 's', '{at}')",
            f"{outbox}'{at}', now())",
            f"{outbox}now(), '{at}')",
            f"agency_instant values ('NASA', '{at}')",
            f"personal_read (read_at, agency_id, actor, route, subject_refs) values ('{at}', 'NASA', 'x', 'r', '{{}}')",
        ):
            with pytest.raises(asyncpg.CheckViolationError, match="readable"):
                await admin.execute(f"insert into {row}")
