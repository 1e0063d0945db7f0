"""`python -m muster_billing serve | migrate | openapi`."""

from muster_billing.bootstrap import build
from muster_runtime.cli import run

if __name__ == "__main__":
    run(build)
