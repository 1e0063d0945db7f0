"""`python -m muster_billing serve | migrate | openapi`."""

from muster_billing.bootstrap import build
from muster_runtime.cli import run

run(build)
