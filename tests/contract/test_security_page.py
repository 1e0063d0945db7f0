"""docs/security.md: each door is named once, and the tests that guard it exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")

DOORS = {
    int(number): tests for number, tests in re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
}


@cache
def functions_of(file: str) -> set[str]:
    """The names of the functions of a file."""
    module = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_door_has_its_row() -> None:
    assert list(DOORS) == list(range(1, 31))


def test_the_files_that_guard_other_doors_exist() -> None:
    cited = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert [file for file in cited if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("number", DOORS)
def test_the_tests_that_guard_a_door_exist(number: int) -> None:
    cited = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOORS[number])
    assert cited
    for file, name in cited:
        assert name in functions_of(file), f"{file}::{name}"
