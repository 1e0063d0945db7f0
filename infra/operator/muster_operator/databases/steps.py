"""What a service still lacks on a Postgres server, as statements in the order of execution."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from muster_operator.databases.passwords import verifier
from muster_operator.failures import Refused

ROLES = ("owner", "api", "worker")

# The first version with `grant maintain`, which the migrations use.
LEAST_VERSION = 170_000

_STATS = "pg_read_all_stats"

_ADMIN = """
select
    current_user as name, rolsuper as is_superuser, rolsuper or rolcreaterole as makes_roles,
    rolsuper or rolcreatedb as makes_databases, current_setting('server_version_num')::integer as version,
    pg_has_role(current_user, $1, 'member with admin option') as grants_statistics
from pg_roles
where rolname = current_user
"""

_ROLE_STATE = """
select
    rolname as name, rolcanlogin as login, rolsuper as superuser, rolcreatedb as createdb,
    rolcreaterole as createrole, rolbypassrls as bypassrls,
    pg_has_role(oid, $2, 'member') as reads_statistics, pg_has_role(current_user, oid, 'set') as is_settable
from pg_roles
where rolname = any($1::text[])
"""

_DATABASE_STATE = """
select
    pg_encoding_to_char(encoding) as encoding,
    exists (
        select from aclexplode(coalesce(datacl, acldefault('d', datdba))) as granted where granted.grantee = 0
    ) as is_public,
    array(
        select r.rolname || ' ' || right_.name
        from pg_roles as r
        cross join (values ('connect'), ('temporary')) as right_ (name)
        where
            r.rolname = any($2::text[])
            and exists (
                select from aclexplode(datacl) as granted
                where granted.grantee = r.oid and lower(granted.privilege_type) = right_.name
            )
    ) as rights,
    array(
        select r.rolname || ' ' || setting
        from pg_db_role_setting as s
        join pg_roles as r on r.oid = s.setrole
        cross join unnest(s.setconfig) as setting
        where s.setdatabase = pg_database.oid and r.rolname = any($2::text[])
    ) as settings
from pg_database
where datname = $1
"""

_SCHEMA_STATE = """
select
    (select r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner where n.nspname = $1) as owner,
    exists (
        select
        from pg_namespace as n
        cross join aclexplode(n.nspacl) as granted
        where n.nspname = 'public' and granted.grantee = 0
    ) as public_is_open
"""


@dataclass(frozen=True)
class Step:
    """A statement, and how to show it without secrets. One that is `inside` runs in the service's database."""

    sql: str
    shown: str
    inside: bool = False


@dataclass(frozen=True)
class Administrator:
    """The provisioning role and its rights."""

    name: str
    is_superuser: bool
    makes_roles: bool
    makes_databases: bool
    version: int
    grants_statistics: bool

    @classmethod
    async def read(cls, connection: "asyncpg.Connection[Any]") -> "Administrator":
        """Read the connected role. Raises Refused if it cannot provision, or if the server is too old."""
        row = await connection.fetchrow(_ADMIN, _STATS)
        assert row is not None
        found = cls(**row)
        if found.version < LEAST_VERSION:
            raise Refused(f"Postgres {found.version // 10_000}: must be {LEAST_VERSION // 10_000} or later")
        if not found.makes_roles:
            raise Refused(f"MUSTER_ADMIN_DSN: the role {found.name} must be a superuser, or have CREATEROLE")
        return found


@dataclass(frozen=True)
class Wanted:
    """A service's roles, database, and schema. `passwords` are by role; a role without one keeps its own."""

    service: str
    database: str
    passwords: Mapping[str, str]

    @property
    def owner(self) -> str:
        """The name of the role that owns the schema."""
        return f"{self.service}_owner"

    @property
    def roles(self) -> Sequence[str]:
        """The names of its roles."""
        return [f"{self.service}_{role}" for role in ROLES]


async def cluster_steps(
    connection: "asyncpg.Connection[Any]", administrator: Administrator, wanted: Wanted
) -> Sequence[Step]:
    """What is missing outside the database: roles, the database, and the rights to it. Raises Refused."""
    roles = {row["name"]: row for row in await connection.fetch(_ROLE_STATE, wanted.roles, _STATS)}
    database = await connection.fetchrow(_DATABASE_STATE, wanted.database, wanted.roles)
    if database is None and not administrator.makes_databases:
        who = f"MUSTER_ADMIN_DSN: the role {administrator.name} has no CREATEDB"
        raise Refused(f"{who}, and there is no database {wanted.database}: create it, or name another role")
    if database is not None and database["encoding"] != "UTF8":
        raise Refused(f"the database {wanted.database} has the encoding {database['encoding']}: must be UTF8")
    return [*_of_roles(roles, administrator, wanted), *_of_database(database, wanted)]


async def inside_steps(connection: "asyncpg.Connection[Any] | None", wanted: Wanted) -> Sequence[Step]:
    """What is missing inside the database; `connection` is None if it does not exist yet. Raises Refused."""
    state = None if connection is None else await connection.fetchrow(_SCHEMA_STATE, wanted.service)
    steps = []
    if state is None or state["public_is_open"]:
        steps.append(_inside("revoke all on schema public from public"))
    if state is None or state["owner"] is None:
        steps.append(_inside(f"create schema {quoted(wanted.service)} authorization {quoted(wanted.owner)}"))
    elif state["owner"] != wanted.owner:
        raise Refused(f"{state['owner']} owns the schema {wanted.service}: the owner must be {wanted.owner}")
    return steps


def _of_roles(roles: Mapping[str, Any], administrator: Administrator, wanted: Wanted) -> Iterator[Step]:
    for name in wanted.roles:
        role = roles.get(name)
        if role is None:
            yield _plain(f"create role {quoted(name)} login nosuperuser nocreatedb nocreaterole nobypassrls")
        else:
            unfit = [f"no{what}" for what in ("superuser", "createdb", "createrole", "bypassrls") if role[what]]
            if changes := ([] if role["login"] else ["login"]) + unfit:
                yield _plain(f"alter role {quoted(name)} {' '.join(changes)}")
        if name in wanted.passwords:
            alter = f"alter role {quoted(name)} password"
            yield Step(f"{alter} '{verifier(wanted.passwords[name])}'", f"{alter} '…'")
    owner = roles.get(wanted.owner)
    # The worker learns the age of the oldest snapshot through a function of the owner, and nothing else.
    if not (owner and owner["reads_statistics"]) and administrator.grants_statistics:
        yield _plain(f"grant {_STATS} to {quoted(wanted.owner)}")
    # Creating a schema for a role needs the right to act as that role.
    if not administrator.is_superuser and not (owner and owner["is_settable"]):
        yield _plain(f"grant {quoted(wanted.owner)} to {quoted(administrator.name)} with inherit false, set true")


def _of_database(database: Any, wanted: Wanted) -> Iterator[Step]:
    """The steps for the database and its rights, which a copy of a template does not inherit."""
    name = quoted(wanted.database)
    rights, settings = (database["rights"], database["settings"]) if database else ([], [])
    if database is None:
        yield _plain(f"create database {name}")
    if database is None or database["is_public"]:
        yield _plain(f"revoke all on database {name} from public")
    if lacking := [quoted(role) for role in wanted.roles if f"{role} connect" not in rights]:
        yield _plain(f"grant connect on database {name} to {', '.join(lacking)}")
    # The rebuild of a projection uses a temporary table.
    worker = f"{wanted.service}_worker"
    if f"{worker} temporary" not in rights:
        yield _plain(f"grant temporary on database {name} to {quoted(worker)}")
    for role in wanted.roles:
        if f"{role} search_path={wanted.service}" not in settings:
            yield _plain(f"alter role {quoted(role)} in database {name} set search_path = {quoted(wanted.service)}")
    # A migration that waits for a lock blocks everyone queued after it.
    if f"{wanted.owner} lock_timeout=5s" not in settings:
        yield _plain(f"alter role {quoted(wanted.owner)} in database {name} set lock_timeout = '5s'")


def quoted(identifier: str) -> str:
    """An identifier, quoted for a statement."""
    return '"' + identifier.replace('"', '""') + '"'


def _plain(sql: str) -> Step:
    return Step(sql, sql)


def _inside(sql: str) -> Step:
    return Step(sql, sql, inside=True)
