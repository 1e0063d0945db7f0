"""The process: `python -m muster_entitlements serve | migrate | rebuild | openapi`."""

from muster_entitlements.bootstrap import build
from muster_runtime.cli import run

run(build)
