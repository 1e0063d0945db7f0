"""A primary and its streaming standby: either may be killed, the standby promoted, and addresses follow the leader."""

import secrets
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
import psutil

from muster_local.child import Program
from muster_local.postgres import Postgres, program
from muster_operator.databases.provisioning import Access
from tests.faults.servers import Server, free_port
from tests.support.eventually import eventually

STANDBY = "standby"


@dataclass(frozen=True, kw_only=True)
class _Standby(Postgres):
    """A server whose data folder is made as a copy of the primary, which it then follows through a slot."""

    primary_dsn: str

    def _initdb(self) -> None:
        self.folder.chmod(0o700)  # as initdb leaves it: the server refuses any other
        parts = urlsplit(self.primary_dsn)
        source = urlunsplit(parts._replace(query=f"{parts.query}&application_name={STANDBY}"))
        subprocess.run(
            [
                str(program("pg_basebackup")),
                f"--dbname={source}",
                f"--pgdata={self.folder}",
                "--write-recovery-conf",
                "--create-slot",
                f"--slot={STANDBY}",
                "--checkpoint=fast",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            cwd="/",
        )


@dataclass
class Replicas:
    """Both servers, by their first roles. The primary's `parameters` apply to the standby too."""

    primary: Server
    standby: Server

    @classmethod
    async def start(cls, folder: Path, parameters: Mapping[str, str] | None = None) -> "Replicas":
        """Start both, in a folder that Postgres' system user can enter; the replication is asynchronous."""
        password = secrets.token_hex(16)
        settings = dict(parameters or {})
        leads = Postgres(folder / "primary", free_port(), password, settings)
        follows = _Standby(folder / STANDBY, free_port(), password, settings, primary_dsn=leads.dsn)
        primary, standby = (_server(server, folder) for server in (leads, follows))
        leads.prepare()
        await primary.up()
        try:
            follows.prepare()
            await standby.up()
        except BaseException:
            primary.kill()
            raise
        return cls(primary, standby)

    def kill(self) -> None:
        """End both."""
        for server in (self.primary, self.standby):
            server.kill()

    def lose_primary(self) -> None:
        """End the primary's sessions; its address continues to accept connections, and answers none."""
        sessions = psutil.Process(self.primary.pid).children()
        self.primary.send(signal.SIGSTOP)
        for session in sessions:
            session.kill()

    def addresses(self, dsn: str) -> str:
        """A database's address on both servers, for a client that connects to whichever leads."""
        parts = urlsplit(dsn)
        credentials = parts.netloc.rpartition("@")[0]
        hosts = ",".join(f"127.0.0.1:{urlsplit(server.address).port}" for server in (self.primary, self.standby))
        query = f"{parts.query}&" if parts.query else ""
        query += urlencode({"target_session_attrs": "read-write"})
        return urlunsplit(parts._replace(netloc=f"{credentials}@{hosts}", query=query))

    def access(self, access: Access) -> Access:
        """The addresses of a service's database on whichever server leads; the owner's stays that of the primary."""
        return replace(
            access,
            admin_dsn=self.addresses(access.admin_dsn),
            api_dsn=self.addresses(access.api_dsn),
            worker_dsn=self.addresses(access.worker_dsn),
        )

    async def wait_for_standby(self) -> None:
        """Make commits on the primary wait for the standby."""
        await configure(self.primary, "synchronous_standby_names", STANDBY)
        await eventually(self._is_synchronous, timeout=30)

    async def cut_off(self) -> None:
        """Cut the standby off, so that it lacks whatever the primary commits from now on."""
        await configure(self.standby, "primary_conninfo", "")
        await eventually(self._streams_nothing, timeout=30)

    async def promote(self) -> None:
        """Promote the standby to leader."""
        await _ask(self.standby, "select pg_promote()")

    async def _is_synchronous(self) -> bool:
        return bool(await _ask(self.primary, "select true from pg_stat_replication where sync_state = 'sync'"))

    async def _streams_nothing(self) -> bool:
        return not await _ask(self.primary, "select exists (select from pg_stat_replication)")


def _server(server: Postgres, folder: Path) -> Server:
    name = server.folder.name
    described = Program(name, server.command(), server.dsn, stop_signal=signal.SIGINT, user=server.user)
    return Server(described, folder / f"{name}.log", server.answers)


async def configure(server: Server, name: str, value: str) -> None:
    """Change a setting permanently, with immediate effect."""
    connection = await asyncpg.connect(server.address)
    try:
        # Nothing here may wait for a standby that is gone.
        await connection.execute("set synchronous_commit = local")
        await connection.execute(f"alter system set {name} = '{value}'")
        await connection.execute("select pg_reload_conf()")
    finally:
        await connection.close()


async def _ask(server: Server, question: str) -> Any:
    connection = await asyncpg.connect(server.address)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
