"""The process: `python -m muster_notify serve | migrate | schema | …`."""

from muster_notify.bootstrap import SCHEMA, build
from muster_runtime.cli import run

run(build, SCHEMA)
