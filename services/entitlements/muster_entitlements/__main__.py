"""The process: `python -m muster_entitlements serve | migrate | schema | …`."""

from muster_entitlements.schema import SCHEMA
from muster_runtime.cli import run

run("muster_entitlements.bootstrap", SCHEMA)
