"""The migrations of a schema: the runtime's and the service's own, in one order."""

from collections import Counter
from pathlib import Path

import pytest

from muster_contracts import SERVICES
from muster_runtime.database.schema import RUNTIME_MIGRATIONS
from tests.support.databases import SOURCES


@pytest.mark.parametrize("service", SERVICES)
def test_no_two_migrations_of_a_schema_share_a_number(service: str) -> None:
    """dbmate would consider the second one applied."""
    own = SOURCES / service / f"muster_{service}" / "migrations"
    numbers = Counter(_number(file) for folder in (RUNTIME_MIGRATIONS, own) for file in folder.glob("*.sql"))
    assert len(numbers) > len(list(own.glob("*.sql")))
    assert max(numbers.values()) == 1, [number for number, count in numbers.items() if count > 1]


def _number(file: Path) -> str:
    return file.name.partition("_")[0]
