"""The schema of billing."""

from pathlib import Path

from muster_runtime.database.schema import Schema

SCHEMA = Schema("billing", Path(__file__).parent / "migrations")
