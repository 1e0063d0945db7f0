"""The four OpenAPI documents: valid, and with patterns that every kind of regular expression understands alike."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from muster_runtime.http import openapi
from tests.contract.node import NODE
from tests.support.applications import BUILDERS, whole_application

# A class of Unicode, an inline flag, a look around, a possessive or lazy trick: not plain, or not the same everywhere.
NOT_PLAIN = re.compile(r"\\[pPAzZGQEK]|\(\?|\[\[|&&|[*+?}]\+")


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (build, settings_class) in BUILDERS.items():
        yield f"{name}, printed", openapi(build(settings_class(environment="sandbox")))
        yield f"{name}, served", whole_application(name).openapi()


def patterns(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            else:
                yield from patterns(value)
    elif isinstance(node, list):
        for each in node:
            yield from patterns(each)


@pytest.mark.parametrize(("name", "document"), [pytest.param(*each, id=each[0]) for each in documents()])
def test_the_document_is_valid(name: str, document: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == [], name


def test_every_pattern_is_a_plain_regular_expression() -> None:
    found = sorted({pattern for _, document in documents() for pattern in patterns(document)})
    assert len(found) > 5
    assert [pattern for pattern in found if NOT_PLAIN.search(pattern)] == []
    for pattern in found:
        re.compile(pattern)
    script = "for (const p of JSON.parse(process.argv[1])) { new RegExp(p); new RegExp(p, 'u') }"
    tried = subprocess.run([str(NODE), "-e", script, json.dumps(found)], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
