"""`muster databases`: what a Postgres server lacks is shown and created, and nothing is done twice."""

import asyncio
import json
import secrets
import stat
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from muster_operator.cli import app
from muster_operator.databases import cli
from muster_operator.databases.passwords import make_passwords
from muster_operator.databases.provisioning import _LOCK, address, apply, apply_locked, drop, locked, plan
from muster_operator.databases.reading import connected, reading
from muster_operator.databases.steps import Wanted
from muster_operator.failures import Refused
from muster_operator.target import Target
from muster_runtime.database.dbmate import migrate
from tests.integration.runtime.core.probe.service import SCHEMA
from tests.support.eventually import eventually

PASSWORD = "Mh4xqTzKq9cV2LrB"


@pytest.fixture
async def wanted(postgres: str) -> AsyncIterator[Wanted]:
    """A service of this test's own: roles belong to the whole server, which other tests use too."""
    name = f"ledger_{secrets.token_hex(4)}"
    roles = [f"{name}_{role}" for role in ("owner", "api", "worker")]
    yield Wanted(name, name, dict.fromkeys(roles, PASSWORD))
    await drop(postgres, name)
    async with connected(postgres) as connection:
        for role in (*roles, f"{name}_admin"):
            if await connection.fetchval("select true from pg_roles where rolname = $1", role):
                await connection.execute(f"drop owned by {role}; drop role {role}")


async def make_admin(postgres: str, wanted: Wanted, rights: str) -> str:
    """The address of an administrator with only these rights."""
    name = f"{wanted.service}_admin"
    async with connected(postgres) as connection:
        await connection.execute(f"create role {name} login password '{PASSWORD}' {rights}")
    return address(postgres, "postgres", name, PASSWORD)


async def shown(dsn: str, wanted: Wanted) -> Sequence[str]:
    """The planned steps for roles that keep their passwords."""
    return [step.shown for step in await plan(dsn, Wanted(wanted.service, wanted.database, {}))]


async def test_what_is_missing_is_made_once_by_several_callers(postgres: str, wanted: Wanted) -> None:
    planned = [step.shown for step in await plan(postgres, wanted)]
    assert f'create database "{wanted.database}"' in planned
    assert not any(PASSWORD in step or "SCRAM" in step for step in planned)
    done = await asyncio.gather(*(apply(postgres, wanted) for _ in range(3)))
    made = [step.shown for steps in done for step in steps]
    assert set(made) == set(planned)
    assert [step for step in made if made.count(step) > 1] == [step for step in made if "password" in step]
    assert await shown(postgres, wanted) == []

    name, owner, worker = wanted.service, wanted.owner, f"{wanted.service}_worker"
    async with connected(postgres) as admin:
        await admin.execute(
            f"""
            alter role {worker} createdb nologin;
            alter role {owner} in database {name} reset lock_timeout;
            revoke connect on database {name} from {worker};
            grant connect on database {name} to public;
            """
        )
    differs = await shown(postgres, wanted)
    assert differs == [
        f'alter role "{worker}" login nocreatedb',
        f'revoke all on database "{name}" from public',
        f'grant connect on database "{name}" to "{worker}"',
        f'alter role "{owner}" in database "{name}" set lock_timeout = \'5s\'',
    ]
    assert [step.shown for step in await apply(postgres, Wanted(name, name, {}))] == differs
    async with connected(address(postgres, name, worker, PASSWORD)) as connection:
        assert await connection.fetchval("show search_path") == name


async def test_an_administrator_need_not_be_a_superuser(postgres: str, wanted: Wanted) -> None:
    dsn = await make_admin(postgres, wanted, "createrole createdb")
    assert not any("pg_read_all_stats" in step.sql for step in await apply(dsn, wanted))
    assert await shown(dsn, wanted) == []
    owner_dsn = address(postgres, wanted.database, wanted.owner, PASSWORD)
    await asyncio.to_thread(migrate, owner_dsn, wanted.service, SCHEMA.migrations)


@pytest.mark.parametrize(
    ("rights", "refusal"),
    [
        ("createdb", "must be a superuser, or have CREATEROLE"),
        ("createrole", "has no CREATEDB, and there is no database"),
    ],
)
async def test_an_administrator_without_a_right_is_told_what_is_missing(
    postgres: str, wanted: Wanted, rights: str, refusal: str
) -> None:
    dsn = await make_admin(postgres, wanted, rights)
    with pytest.raises(Refused, match=refusal):
        await apply(dsn, wanted)


def test_the_command_makes_passwords_and_keeps_those_it_is_given(
    postgres: str, wanted: Wanted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "SERVICES", (wanted.service,))
    folder = tmp_path / "passwords"
    owner, api, worker = wanted.roles

    def databases(verb: str) -> tuple[int, Any]:
        arguments = ["databases", verb, "--json", f"--passwords={folder}", "--database={service}"]
        result = CliRunner().invoke(app, arguments, env={"MUSTER_ADMIN_DSN": postgres})
        return result.exit_code, json.loads(result.stdout) if result.stdout else result.stderr

    def logs_in(role: str) -> bool:
        async def try_it() -> bool:
            try:
                async with connected(address(postgres, wanted.database, role, (folder / role).read_text("utf-8"))):
                    return True
            except asyncpg.InvalidPasswordError:
                return False

        return asyncio.run(try_it())

    folder.mkdir()
    (folder / api).write_text("secret\n", "utf-8")
    assert databases("plan") == (2, f"muster: {folder / api}: production requires at least 16 characters\n")
    (folder / api).write_text(f"{PASSWORD}\n", "utf-8")
    status, planned = databases("plan")
    assert (status, [file.name for file in folder.iterdir()]) == (1, [api])
    assert databases("apply") == (0, planned)
    assert {stat.S_IMODE((folder / role).stat().st_mode) for role in (owner, worker)} == {0o600}
    assert (folder / api).read_text("utf-8") == f"{PASSWORD}\n"
    (folder / api).write_text(PASSWORD, "utf-8")
    assert all(logs_in(role) for role in wanted.roles)
    assert databases("plan") == (0, {"steps": []})

    (folder / api).write_text(PASSWORD[::-1], "utf-8")
    (folder / worker).unlink()
    assert not logs_in(api)
    status, changed = databases("apply")
    assert [step["sql"] for step in changed["steps"]] == [f"alter role \"{api}\" password '…'"]
    assert logs_in(api)


@pytest.mark.parametrize("folders", [("passwords", "passwords"), ("ours", "theirs")])
async def test_commands_that_run_at_once_keep_passwords_that_work(
    postgres: str, wanted: Wanted, tmp_path: Path, folders: tuple[str, str]
) -> None:
    target, new = Target({}, "", postgres, {}, ""), Wanted(wanted.service, wanted.database, {})

    async def apply_with(folder: Path) -> cli.Done:
        return await cli._steps(target, [new], folder, partial(make_passwords, folder), apply_locked, locked)

    async with connected(postgres) as admin, asyncio.TaskGroup() as commands:
        await admin.execute("select pg_advisory_lock($1)", _LOCK)
        done = [commands.create_task(apply_with(tmp_path / folder)) for folder in folders]

        async def both_wait() -> bool:
            waiting = "select count(*) > 1 from pg_locks where locktype = 'advisory' and not granted and objid = $1"
            return bool(await admin.fetchval(waiting, _LOCK))

        await eventually(both_wait)
        await admin.execute("select pg_advisory_unlock($1)", _LOCK)
    assert sorted(bool(task.result()) for task in done) == [False, True]
    assert len(list(tmp_path.glob("*/*"))) == len(wanted.roles)
    for file in tmp_path.glob("*/*"):
        async with connected(address(postgres, wanted.database, file.name, file.read_text("utf-8"))):
            pass


async def test_a_placeholder_in_the_address_leads_to_each_services_own_database(postgres: str, wanted: Wanted) -> None:
    await apply(postgres, wanted)
    everywhere = address(postgres, "any").replace("any", "{service}")
    async with reading(everywhere, wanted.service) as connection:
        assert await connection.fetchval("select current_database()") == wanted.database
        assert await connection.fetchval("select current_schema()") == wanted.service
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("create table effect (id bigint)")


def test_creating_databases_requires_the_address_of_one(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_ADMIN_DSN", address(postgres, "any").replace("any", "{service}"))
    found = CliRunner().invoke(app, ["databases", "plan"])
    assert found.exit_code == 2
    assert "MUSTER_ADMIN_DSN: must name one database of the server, without {service}" in found.stderr
