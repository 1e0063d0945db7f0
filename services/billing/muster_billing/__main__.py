"""The process: `python -m muster_billing serve | migrate | schema | …`."""

from muster_billing.schema import SCHEMA
from muster_runtime.cli import run

run("muster_billing.bootstrap", SCHEMA)
