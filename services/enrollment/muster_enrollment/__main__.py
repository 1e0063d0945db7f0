"""`python -m muster_enrollment serve | migrate | openapi`."""

from muster_enrollment.bootstrap import build
from muster_runtime.cli import run

run(build)
