"""The process: `python -m muster_billing serve | migrate | schema | …`."""

from muster_billing.bootstrap import SCHEMA, build
from muster_runtime.cli import run

run(build, SCHEMA)
