"""The process: `python -m muster_entitlements serve | migrate | schema | …`."""

from muster_entitlements.bootstrap import SCHEMA, build
from muster_runtime.cli import run

run(build, SCHEMA)
