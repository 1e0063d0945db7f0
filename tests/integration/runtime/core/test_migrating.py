"""A migration takes every address and every password that a service takes."""

import asyncio
from urllib.parse import urlsplit

import asyncpg

from muster_runtime.database.dbmate import migrate
from tests.integration.runtime.core.probe.service import SCHEMA
from tests.support.databases import Databases

# dbmate refuses them in a password, and a service takes them as they are.
CHARACTERS = "a^b|c<d>4711"


async def test_a_password_needs_no_more_escapes_than_for_a_service(databases: Databases) -> None:
    access = await databases.make("quirk", SCHEMA.migrations)
    admin = await asyncpg.connect(access.admin_dsn)
    await admin.execute(f"alter role quirk_owner password '{CHARACTERS}'")
    await admin.close()
    owner = urlsplit(access.owner_dsn)
    _, _, server = owner.netloc.rpartition("@")
    dsn = owner._replace(netloc=f"quirk_owner:{CHARACTERS}@{server}").geturl()
    await asyncio.to_thread(migrate, dsn, "quirk", SCHEMA.migrations)


async def test_the_primary_is_found_among_several_servers(databases: Databases) -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as down:
        access = await databases.make("probe", SCHEMA.migrations)
        owner = urlsplit(access.owner_dsn)
        credentials, _, server = owner.netloc.rpartition("@")
        hosts = f"127.0.0.1:{down.sockets[0].getsockname()[1]},{server}"
        both = owner._replace(netloc=f"{credentials}@{hosts}", query="target_session_attrs=read-write").geturl()
        await asyncio.to_thread(migrate, both, "probe", SCHEMA.migrations)
