"""The commands that this package adds to `muster`."""

from muster_operator.catalog import Catalog, Command

CATALOG = Catalog(
    "Sandbox",
    (
        Command(
            "up",
            "muster_local.lifecycle:up",
            "Start Postgres, Kafka, the mail sink, and the four services, and leave them running.",
        ),
        Command(
            "down",
            "muster_local.lifecycle:down",
            "Stop everything.",
        ),
        Command(
            "status",
            "muster_local.status:status",
            "Show whether each process is ready, and if not, why.",
        ),
        Command(
            "logs",
            "muster_local.logs:logs",
            "Print the logs of the processes.",
        ),
        Command(
            "token",
            "muster_local.access:token",
            "Print a bearer token from the sandbox's issuer, valid for one day.",
        ),
        Command(
            "address",
            "muster_local.access:address",
            "Print the address of a process.",
        ),
        Command(
            "clock",
            "muster_local.clock:app",
            "Show or advance the sandbox's clock.",
        ),
        Command(
            "demo",
            "muster_local.demo.cli:demo",
            "Run the program's first year on a new stack, and prove that its books balance.",
        ),
        Command(
            "drill",
            "muster_local.drill:drill",
            "Run Muster's fault tests against your own Postgres and Kafka, without harming them.",
        ),
    ),
)
