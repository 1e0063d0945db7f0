"""A test's own Postgres that accepts only TLS connections."""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muster_local.certificates import Authority
from muster_local.child import Program
from muster_local.postgres import Postgres, PostgresSecurity
from tests.faults.servers import Server, free_port


@dataclass(frozen=True)
class SecuredPostgres:
    """The server, and the authority that issues its certificate and its clients'."""

    server: Server
    authority: Authority

    def certified(self, dsn: str, role: str) -> str:
        """A role's DSN with a new certificate."""
        certificate = self.authority.issue(role)
        return f"{dsn}&sslcert={certificate.certificate}&sslkey={certificate.key}"


@contextmanager
def secured_postgres(certified: Sequence[str] = ()) -> Iterator[SecuredPostgres]:
    """Run a server until the block ends. The roles in `certified` need a certificate in addition to their password."""
    # Not in pytest's folder: each new run closes it to other users, and Postgres runs as another user.
    with tempfile.TemporaryDirectory(prefix="muster-secured-") as folder:
        authority = Authority.load(Path(folder) / "certificates")
        security = PostgresSecurity(authority.issue("postgres"), authority.certificate, certified)
        postgres = Postgres(Path(folder) / "postgres", free_port(), secrets.token_hex(16), security=security)
        postgres.prepare()
        program = Program("postgres", postgres.command(), postgres.dsn, stop_signal=signal.SIGINT, user=postgres.user)
        server = Server(program, Path(folder) / "postgres.log", postgres.answers)
        asyncio.run(server.up())
        yield SecuredPostgres(server, authority)
        server.stop()
