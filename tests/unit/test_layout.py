"""The pattern that every service follows, and the size at which a file or a class is split."""

import ast
from pathlib import Path

import pytest

from muster_contracts import SERVICES

ROOT = Path(__file__).parents[2]

# Each is a module or a package; a service has no others.
PATTERN = {
    *("__init__", "__main__", "bootstrap", "schema", "settings"),
    *("domain", "errors", "commands", "handlers", "subscriptions", "publishing"),
    *("repository", "queries", "replies", "api", "adapters", "workers"),
}

# Tables of test data.
TABLES = {"tests/contract/schema_changes.py"}

FILE_LINES, CLASS_LINES = 300, 200


def sources() -> list[Path]:
    """Every Python file of the project, with its path from the root."""
    folders = ("contracts", "services", "infra", "tests")
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not {"node_modules", "build"} & set(path.parts))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_files_of_the_pattern_and_no_others(service: str) -> None:
    package = ROOT / "services" / service / f"muster_{service}"
    found = {path.name.removesuffix(".py") for path in package.iterdir() if path.name != "__pycache__"}
    assert found - PATTERN == {"migrations", "py.typed"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_domain_knows_neither_storage_nor_transport(service: str) -> None:
    package = ROOT / "services" / service / f"muster_{service}"
    domain = package / "domain"
    for path in [*domain.rglob("*.py")] or [package / "domain.py"]:
        for name in imported(path):
            assert not name.startswith(("asyncpg", "fastapi", "httpx", "aiokafka", "muster_runtime.database")), path
            assert not name.startswith(("muster_runtime.http", "muster_runtime.messaging")), path
            allowed = (f"muster_{service}.domain", f"muster_{service}.errors")
            assert not name.startswith(f"muster_{service}.") or name.startswith(allowed), f"{path} imports {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_errors_know_nothing_of_it(service: str) -> None:
    package = ROOT / "services" / service / f"muster_{service}"
    for path in [*package.glob("errors.py"), *package.glob("errors/*.py")]:
        assert [name for name in imported(path) if name.startswith(f"muster_{service}")] == []


def test_no_file_is_too_long() -> None:
    long = {
        str(path): lines
        for path in sources()
        if (lines := len((ROOT / path).read_text("utf-8").splitlines())) > FILE_LINES
    }
    assert long.keys() <= TABLES, long


def test_no_class_is_too_long() -> None:
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > CLASS_LINES:
                long[f"{path}: {node.name}"] = lines
    assert long == {}


def imported(path: Path) -> list[str]:
    """The modules that a file imports from."""
    tree = ast.parse(path.read_text("utf-8"))
    return [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
