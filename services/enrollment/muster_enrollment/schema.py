"""The schema of enrollment."""

from pathlib import Path

from muster_runtime.database.schema import Schema

SCHEMA = Schema("enrollment", Path(__file__).parent / "migrations")
