"""Checks that each role of a service can work in its database, and that the code can run on the schema."""

from collections.abc import AsyncIterator, Collection, Iterator
from importlib.metadata import version
from typing import Any

import asyncpg

from muster_operator.databases.steps import LEAST_VERSION
from muster_operator.preflight.findings import Check, Finding
from muster_operator.preflight.subjects import Subject
from muster_operator.releases import judge, read_releases
from muster_runtime.clock import SystemClock, skew
from muster_runtime.database.pooler import shares_connections
from muster_runtime.database.sessions import NO_ADDRESS, Address

# The time that a server may take to accept a session.
CONNECT_SECONDS = 5.0

MAKE = "muster databases apply"

_STATE = """
select
    current_user as name, current_setting('server_version_num')::integer as number,
    current_setting('server_version') as version, pg_encoding_to_char(d.encoding) as encoding,
    coalesce((select s.ssl from pg_stat_ssl as s where s.pid = pg_backend_pid()), false) as tls,
    r.rolsuper or r.rolcreatedb or r.rolcreaterole or r.rolbypassrls as is_mighty,
    has_database_privilege(current_database(), 'temporary') as makes_temporary,
    (select n.nspowner::regrole::text from pg_namespace as n where n.nspname = $1) as schema_owner
from pg_roles as r
cross join pg_database as d
where r.rolname = current_user and d.datname = current_database()
"""


async def check_postgres(subject: Subject) -> AsyncIterator[Finding]:
    """Check each role, the schema, and the server's clock."""
    for role in ("api", "worker", "owner"):
        setting = f"MUSTER_POSTGRES_{role.upper()}_DSN"
        dsn = getattr(subject.settings, f"postgres_{role}_dsn")
        check = Check(subject.service, f"postgres as {role}")
        if not dsn.get_secret_value():
            if role != "owner":  # no service has the owner's DSN
                yield check.failed(f"{setting} is not set", "add the role's DSN to the service's secrets")
            continue
        address = Address(dsn)
        try:
            connection = await address.connect(timeout=CONNECT_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            reason = str(error).partition("\n")[0] or f"no answer within {CONNECT_SECONDS:g} s"
            found = address.refusal or f"Postgres cannot be reached: {reason}"
            yield check.failed(found, f"correct {setting}, or the server's pg_hba.conf, certificate, or password")
            continue
        except ValueError:  # its message may contain part of the password
            yield check.failed(f"{setting} is {NO_ADDRESS}", "correct it")
            continue
        try:
            async for finding in _of_session(check, connection, subject.service, role):
                yield finding
            if role != "owner" and await shares_connections(dsn):
                yield check.failed("a pooler in transaction mode", "set its pool_mode to session")
            if role == "worker":
                yield await _of_schema(Check(subject.service, "schema"), connection)
                yield await _of_clock(Check(subject.service, "clock of postgres"), connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            yield check.failed(
                f"Postgres cannot be queried: {error or type(error).__name__}", "look at the server's log"
            )
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _of_session(
    check: Check, connection: "asyncpg.Connection[Any]", service: str, role: str
) -> AsyncIterator[Finding]:
    state = await connection.fetchrow(_STATE, service)
    assert state is not None
    faults = list(_faults(check, state, service, role))
    for fault in faults:
        yield fault
    if not faults:
        tls = "with TLS" if state["tls"] else "without TLS"
        yield check.ok(f"{state['name']} logs in {tls} to PostgreSQL {state['version'].partition(' ')[0]}")


def _faults(check: Check, state: asyncpg.Record, service: str, role: str) -> Iterator[Finding]:
    if state["name"] != f"{service}_{role}":
        yield check.failed(f"the role is {state['name']}: must be {service}_{role}", "migrations grant rights to it")
    if state["number"] < LEAST_VERSION:
        least = LEAST_VERSION // 10_000
        yield check.failed(f"PostgreSQL {state['version']}: must be {least} or later", "upgrade the server")
    if state["encoding"] != "UTF8":
        yield check.failed(f"the encoding is {state['encoding']}: must be UTF8", "create another database")
    if state["is_mighty"]:
        rights = "SUPERUSER, CREATEDB, CREATEROLE, or BYPASSRLS"
        yield check.failed(f"{state['name']} has {rights}: agencies are not isolated", f"revoke it: {MAKE}")
    if state["schema_owner"] is None:
        yield check.failed(f"there is no schema {service}", f"create it: {MAKE}")
    elif state["schema_owner"] != f"{service}_owner":
        yield check.failed(f"{state['schema_owner']} owns the schema {service}", f"the owner must be {service}_owner")
    if role == "worker" and not state["makes_temporary"]:
        yield check.warning("may not create temporary tables, which a rebuild needs", f"grant it: {MAKE}")


async def _of_schema(check: Check, connection: "asyncpg.Connection[Any]") -> Finding:
    """Whether this version's code can run on the schema. Pending migrations are only a warning."""
    this = version("muster-operator")
    releases = read_releases()
    if (window := releases.get(this, {}).get(check.service)) is None:
        return check.warning(f"the schema versions of {this} are unknown", "use the muster of the release")
    verdict = judge(releases, this, check.service, await _applied(connection, check.service))
    at = f"the schema is at {verdict.database}" if verdict.database else "there are no migrations yet"
    if verdict.can_run:
        return check.ok(f"{at}, and {window.schema_min} is needed")
    if verdict.pending:
        return check.warning(f"{at}: {this} needs {window.schema_min}", f"python -m muster_{check.service} migrate")
    return check.failed(f"{at}: {verdict.reason}", "see the runbook rollback.md")


async def _applied(connection: "asyncpg.Connection[Any]", service: str) -> Collection[str]:
    table = f'"{service}".schema_migrations'
    try:
        if not await connection.fetchval("select to_regclass($1) is not null", table):
            return []
        rows = await connection.fetch(f"select version from {table}")  # noqa: S608 - a service of the contracts
    except asyncpg.InsufficientPrivilegeError:  # the migration that grants the right is not applied yet
        return []
    return [row["version"] for row in rows]


async def _of_clock(check: Check, connection: "asyncpg.Connection[Any]") -> Finding:
    clock = SystemClock()
    sent = clock.now()
    server = await connection.fetchval("select clock_timestamp()")
    if reason := skew(sent, server, server, clock.now()):
        return check.failed(reason, "synchronize both clocks with NTP")
    return check.ok("agrees with this machine's")
