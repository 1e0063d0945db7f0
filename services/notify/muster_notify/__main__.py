"""`python -m muster_notify serve | migrate | …`."""

from muster_notify.bootstrap import build
from muster_runtime.cli import run

run(build)
