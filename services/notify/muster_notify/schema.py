"""The schema of notify."""

from pathlib import Path

from muster_runtime.database.schema import Schema

SCHEMA = Schema("notify", Path(__file__).parent / "migrations")
