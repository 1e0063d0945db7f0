"""The probe as a process."""

from muster_runtime.cli import run
from tests.faults.probe.service import build

run(build)
