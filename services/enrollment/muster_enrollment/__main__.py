"""The process: `python -m muster_enrollment serve | migrate | schema | …`."""

from muster_enrollment.bootstrap import SCHEMA, build
from muster_runtime.cli import run

run(build, SCHEMA)
