"""The process: `python -m muster_enrollment serve | migrate | schema | …`."""

from muster_enrollment.schema import SCHEMA
from muster_runtime.cli import run

run("muster_enrollment.bootstrap", SCHEMA)
