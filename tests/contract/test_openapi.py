"""The four OpenAPI documents: valid, complete for a reader, and with plain regular expressions only."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from muster_local.node import NODE, installed
from muster_runtime.http.application import openapi
from tests.support.applications import BUILDERS, whole_application

# A Unicode class, inline flag, lookaround, possessive or lazy quantifier: not plain, or not the same everywhere.
NOT_PLAIN = re.compile(r"\\[pPAzZGQEK]|\(\?|\[\[|&&|[*+?}]\+")

# A summary is an imperative: "Assign a seat".
VERBS = {
    *("Accept", "Activate", "Add", "Approve", "Assign", "Check", "Consume", "Correct", "Delete", "Discard"),
    *("Download", "Enable", "End", "Erase", "Explain", "Extend", "Forecast", "Grant", "Import", "Invite", "List"),
    *("Plan", "Preview", "Publish", "Reconcile", "Record", "Reinstate", "Reject", "Release", "Replay", "Report"),
    *("Resize", "Retrieve", "Retry", "Revoke", "Rotate", "Set", "Submit", "Suspend", "Transfer", "Withdraw"),
}


@cache
def printed(name: str) -> dict[str, Any]:
    build, settings_class = BUILDERS[name]
    return openapi(build(settings_class(environment="sandbox")))


@cache
def served(name: str) -> dict[str, Any]:
    return whole_application(name).openapi()


def documents() -> dict[str, dict[str, Any]]:
    return {f"{name}, {make.__name__}": make(name) for name in BUILDERS for make in (printed, served)}


def linted(folder: Path, documents: Mapping[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Redocly's findings: for each, the document and the rule."""
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    project = installed(Path(__file__).parent / "redocly")
    done = subprocess.run(
        [str(NODE), "node_modules/@redocly/cli/bin/cli.js", "lint", "--format=json"]
        + [str(folder / f"{name}.json") for name in documents],
        cwd=project,
        env=os.environ | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    reports = json.loads(f"[{done.stdout.replace('}{', '},{')}]")  # one for each document, behind one another
    assert len(reports) == len(documents), done.stderr
    problems = [found for report in reports for found in report["problems"]]
    assert (done.returncode == 0) == (not problems)
    return [(Path(found["location"][0]["source"]["ref"]).stem, found["ruleId"]) for found in problems]


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


def integers(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "integer":
            yield node
        for each in node.values():
            yield from integers(each)
    elif isinstance(node, list):
        for each in node:
            yield from integers(each)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations of each service's own routes."""
    for name in BUILDERS:
        for path, methods in printed(name)["paths"].items():
            if path not in {"/v1/audit", "/v1/personal-reads"}:  # the runtime's
                yield from ((f"{name}: {method} {path}", operation) for method, operation in methods.items())


@pytest.mark.parametrize("name", BUILDERS)
def test_the_documents_are_valid(name: str) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # its import takes seconds

    for document in (printed(name), served(name)):
        assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_redocly_finds_nothing_in_the_documents_and_would_report_a_fault(tmp_path: Path) -> None:
    faulty = json.loads(json.dumps(printed("billing")))
    del faulty["paths"]["/v1/agencies/{agency_id}/terms"]["get"]["parameters"][0]
    assert set(linted(tmp_path, documents() | {"faulty": faulty})) == {("faulty", "path-parameters-defined")}


def test_a_header_is_marked_required_if_a_request_without_it_is_refused() -> None:
    found = {
        name: parameter["required"]
        for name, operation in operations()
        if "428" in operation["responses"]
        for parameter in operation["parameters"]
        if parameter["name"] == "if-match"
    }
    assert found == {
        "enrollment: post /v1/agencies/{agency_id}/withdrawal": True,
        "entitlements: post /v1/catalog/draft/publication": True,
    }


def test_an_operation_tells_a_reader_what_it_does() -> None:
    for name, operation in operations():
        verb, *others = operation["summary"].split()
        assert verb in VERBS, name
        assert [word for word in others if word.istitle()] == [], name  # FastAPI's default: the function's name
        assert not operation["summary"].endswith("."), name
        assert len(operation["tags"]) == 1, name
        typed = [parameter["schema"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"]
        assert [schema for schema in typed if "pattern" not in schema] == [], name
        missing = {"400", "401", "403", "404", "415", "422", "429", "503", "default"} - set(operation["responses"])
        assert missing == set(), name


def test_a_command_that_can_conflict_documents_it() -> None:
    documented = {name for name, operation in operations() if "409" in operation["responses"]}
    assert "entitlements: post /v1/agencies/{agency_id}/seats" in documented
    assert "billing: post /v1/agencies/{agency_id}/invoices/{invoice_id}/payments" in documented
    assert not [name for name in documented if ": get " in name]


def test_every_pattern_is_a_plain_regular_expression() -> None:
    found = sorted({pattern for document in documents().values() for pattern in patterns(document)})
    assert len(found) > 5
    assert [pattern for pattern in found if NOT_PLAIN.search(pattern)] == []
    for pattern in found:
        re.compile(pattern)
    script = "for (const p of JSON.parse(process.argv[1])) { new RegExp(p); new RegExp(p, 'u') }"
    tried = subprocess.run([str(NODE), "-e", script, json.dumps(found)], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr


def test_an_integer_that_may_need_64_bits_says_so() -> None:
    for name, document in documents().items():
        narrow = [found for found in integers(document) if "format" not in found]
        assert all(found["maximum"] < 2**31 for found in narrow), name
        assert narrow, name  # such as a page's limit
    revision = printed("entitlements")["components"]["schemas"]["CheckReply"]["properties"]["revision"]
    assert revision["format"] == "int64"
