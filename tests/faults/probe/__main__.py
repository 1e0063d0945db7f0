"""The probe as a process."""

from muster_runtime.cli import run
from muster_runtime.database.schema import Schema
from tests.faults.probe.service import MIGRATIONS

run("tests.faults.probe.service", Schema("probe", MIGRATIONS))
