"""The process: `python -m muster_entitlements serve | migrate | openapi`."""

from muster_entitlements.bootstrap import build
from muster_runtime.cli import run

run(build)
