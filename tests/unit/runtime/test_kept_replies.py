"""Replies to commands are stored, so those that contain personal data or a secret are few, and listed here."""

from collections.abc import Iterator
from typing import Any

import pytest

from muster_runtime.http.application import openapi
from muster_runtime.service import Service
from tests.support.applications import BUILDERS

BUILT = [build(settings_class(environment="sandbox")) for build, settings_class in BUILDERS.values()]

# What a kept reply must not hold. Each of these routes takes it out (`kept=`), and has a test that it does.
NOT_KEPT = {"email", "emails", "name", "secret", "user_name", "display_name"}
TAKEN_OUT = {
    "POST /v1/agencies/{agency_id}/seats": {"email", "name"},
    "POST /v1/agencies/{agency_id}/webhooks": {"secret"},
    "POST /v1/agencies/{agency_id}/webhooks/{webhook_id}/secret-rotation": {"secret"},
}

# A feature's name is not a person's.
HARMLESS = {"PUT /v1/catalog/draft": {"name"}, "POST /v1/catalog/draft/publication": {"name"}}


@pytest.mark.parametrize("service", BUILT, ids=lambda service: service.name)
def test_a_command_that_answers_with_personal_data_or_a_secret_is_listed(service: Service) -> None:
    document = openapi(service)
    found = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method not in {"get", "parameters"}:
                named = set(_properties(document, operation["responses"])) & NOT_KEPT
                if named:
                    found[f"{method.upper()} {path}"] = named
    paths = set(document["paths"])
    known = TAKEN_OUT | HARMLESS
    assert found == {route: names for route, names in known.items() if route.split(" ")[1] in paths}


def _properties(document: dict[str, Any], schema: Any) -> Iterator[str]:
    """The names of all properties in a schema and those that it refers to."""
    if isinstance(schema, list):
        for item in schema:
            yield from _properties(document, item)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from _properties(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _properties(document, value)
