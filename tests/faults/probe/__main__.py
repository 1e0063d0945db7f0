"""The probe as a process."""

from muster_runtime.cli import run
from tests.faults.probe.service import SCHEMA

run("tests.faults.probe.service", SCHEMA)
