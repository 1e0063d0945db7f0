"""A package installed without its migrations cannot migrate: it says so instead of reporting success."""

from pathlib import Path

import pytest

from muster_runtime.database import schema
from muster_runtime.database.dbmate import migrate
from muster_runtime.database.schema import MigrationsMissing

NOWHERE = "postgresql://owner@127.0.0.1:1/muster"


def test_without_a_services_migrations_nothing_is_migrated(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(MigrationsMissing, match=f"^{folder} has no migrations: reinstall the package$"):
            migrate(NOWHERE, "billing", folder)


def test_without_the_runtimes_migrations_nothing_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "20250806000000_first.sql").touch()
    monkeypatch.setattr(schema, "RUNTIME_MIGRATIONS", tmp_path / "runtime")
    with pytest.raises(MigrationsMissing, match=f"^{tmp_path}/runtime has no migrations"):
        migrate(NOWHERE, "billing", tmp_path)
