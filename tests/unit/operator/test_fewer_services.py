"""If not all services run, the operator's commands ask only those that do."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from muster_contracts import SERVICES
from muster_operator import rollback
from muster_operator.cli import app
from muster_operator.databases import cli
from muster_operator.releases import read_releases
from muster_operator.target import Target

RUNNING = tuple(name for name in SERVICES if name != "notify")
NAMED = [part for name in RUNNING for part in ("--service", name)]


class Answering:
    """A service that has produced, or applied, the event of the self-test."""

    async def get(self, path: str, **_query: str) -> Any:
        position = {"epoch": 1, "sequence": 7}
        return {"items": [{"produced": position, "applied": position}]} if path == "/v1/streams" else {}

    async def post(self, _path: str, _body: Mapping[str, Any]) -> Any:
        return {"authorization_id": "atu_1"}


@asynccontextmanager
async def answering(target: Target, *_: Any, **__: Any) -> AsyncIterator[dict[str, Answering]]:
    yield {name: Answering() for name in target.urls}


def test_a_self_test_waits_for_the_readers_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "services", answering)
    urls = {f"MUSTER_{name.upper()}_URL": "http://127.0.0.1:1" for name in RUNNING} | {"MUSTER_TOKEN": "token"}

    def self_test(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["self-test", "--json", *arguments], env=urls)

    everyone = self_test()
    assert (everyone.exit_code, "notify: must be a service whose URL is known" in everyone.stderr) == (2, True)
    running = self_test(*NAMED)
    assert running.exit_code == 0, running.output
    assert set(json.loads(running.stdout)["applied_seconds"]) == {"billing", "entitlements"}
    nobody = self_test("--service", "enrollment")
    assert (nobody.exit_code, "must name a reader of the event" in nobody.stderr) == (2, True)


def test_a_rollback_is_judged_for_the_services_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    release, windows = next(iter(read_releases().items()))

    async def applied(_dsn: str, service: str, _read: Any) -> list[str]:
        return [windows[service].schema_head] if service in RUNNING else []

    monkeypatch.setattr(rollback, "within", applied)

    def check(*arguments: str) -> tuple[int, list[str]]:
        command = ["rollback-check", "--to", release, "--json", *arguments]
        result = CliRunner().invoke(app, command, env={"MUSTER_ADMIN_DSN": "postgresql://reader@db/muster"})
        return result.exit_code, [each["service"] for each in json.loads(result.stdout)["services"]]

    assert check() == (1, list(SERVICES))
    assert check(*NAMED) == (0, list(RUNNING))


def test_only_services_that_run_get_roles_and_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_target: Target, wanted: Any, *_: Any) -> list[Any]:
        assert [each.database for each in wanted] == [f"muster_{name}" for name in RUNNING]
        return []

    monkeypatch.setattr(cli, "_steps", nothing)
    result = CliRunner().invoke(app, ["databases", "apply", "--database", "muster_{service}", *NAMED])
    assert result.exit_code == 0, result.output
