"""PgBouncer, as the system's package installs it, in front of the suite's Postgres."""

import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from muster_local.child import Program
from muster_operator.databases.provisioning import Access
from tests.faults.field import Field, Where
from tests.faults.proxy import at_port
from tests.faults.servers import Server, free_port

# Debian installs it where only root's PATH looks.
_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "pgbouncer"

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={upstream}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
"""


class PgBouncer(Server):
    """A pooler of the test's own; `settings` are lines of its configuration."""

    def __init__(self, folder: Path, access: Access, user: str | None, settings: Sequence[str]) -> None:
        self._port = free_port()
        self._configuration = folder / "pgbouncer.ini"
        users = folder / "users.txt"
        logins = [urlsplit(dsn) for dsn in (access.api_dsn, access.worker_dsn)]
        users.write_text("".join(f'"{login.username}" "{login.password}"\n' for login in logins), "utf-8")
        upstream = urlsplit(access.api_dsn).port
        head = _CONFIGURATION.format(upstream=upstream, port=self._port, users=users)
        self._configuration.write_text("\n".join([head, *settings, ""]), "utf-8")
        if user is not None:  # it does not run as root
            for path in (folder, users, self._configuration):
                shutil.chown(path, user, user)
        address = self.address_of(access.worker_dsn)
        command = [_PROGRAM, str(self._configuration)]
        program = Program("pgbouncer", command, address, stop_signal=signal.SIGINT, user=user)
        super().__init__(program, folder / "pgbouncer.log", lambda: _admits(address))

    def address_of(self, dsn: str) -> str:
        """The pooler's address in place of the server's."""
        return at_port(dsn, self._port)

    def in_front_of(self, field: Field) -> Where:
        """The field's addresses, with the pooler in front of its database."""
        access = field.access
        return Where(
            Access(
                access.admin_dsn,
                access.owner_dsn,
                self.address_of(access.api_dsn),
                self.address_of(access.worker_dsn),
            ),
            field.bootstrap,
        )


StartPooler = Callable[..., Awaitable[PgBouncer]]


async def _admits(address: str) -> bool:
    """Whether a client can connect. A query would leave a prepared statement on the server connection."""
    try:
        connection = await asyncpg.connect(address, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
