"""Postgres in a pod: TLS alone, everyone by a password; the data are in /data."""

import os
from pathlib import Path

from muster_local.certificates import Certificate
from muster_local.postgres import Postgres, PostgresSecurity

CERTIFICATES = Path("/certificates")


def main() -> None:
    """Become the server."""
    made = Certificate(CERTIFICATES / "postgres.pem", CERTIFICATES / "postgres.key", CERTIFICATES / "postgres.both.pem")
    server = Postgres(
        Path("/data/postgres"),
        5432,
        os.environ["POSTGRES_PASSWORD"],
        parameters={"listen_addresses": "0.0.0.0", "max_connections": "600"},  # noqa: S104
        security=PostgresSecurity(made, CERTIFICATES / "ca.pem"),
    )
    server.prepare()
    command = list(server.command())
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
