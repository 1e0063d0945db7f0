"""The schema of entitlements."""

from pathlib import Path

from muster_runtime.database.schema import Schema

SCHEMA = Schema("entitlements", Path(__file__).parent / "migrations")
