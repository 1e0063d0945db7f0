"""The process: `python -m muster_notify serve | migrate | schema | …`."""

from muster_notify.schema import SCHEMA
from muster_runtime.cli import run

run("muster_notify.bootstrap", SCHEMA)
