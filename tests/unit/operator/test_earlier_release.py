"""The operator's commands beside services of the release before, which do not hold deadlines."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from muster_operator.cli import app
from muster_operator.failures import NotFound
from muster_operator.target import Target

SINCE = "2025-08-06T00:00:00Z"


class Earlier:
    """A service of the release before, without parked deadlines and streams."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def get(self, path: str, **_query: str) -> Any:
        raise NotFound(f"{self.name}: no such path: {path}")

    async def items(self, _path: str, **_query: str) -> AsyncIterator[dict[str, Any]]:
        none: list[dict[str, Any]] = []
        for item in none:
            yield item

    async def post(self, _path: str, _body: Mapping[str, Any]) -> Any:
        return {"epoch": 2, "streams": 1}


class Current(Earlier):
    """A service of this release, whose deadlines are held."""

    async def get(self, path: str, **_query: str) -> Any:
        del path
        return {"held_since": SINCE}

    async def post(self, _path: str, _body: Mapping[str, Any]) -> Any:
        return {"epoch": 2, "streams": 1, "deadlines_held": True}


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def running(_target: Target, *_: Any) -> AsyncIterator[dict[str, Earlier]]:
        yield {"billing": Current("billing"), "notify": Earlier("notify")}

    monkeypatch.setattr(Target, "services", running)


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"MUSTER_TOKEN": "token"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_service_that_knows_no_hold_holds_no_deadlines() -> None:
    assert json.loads(invoke("deadlines", "list", "--json"))["held"] == [{"service": "billing", "since": SINCE}]


@pytest.mark.parametrize(("service", "holds"), [("billing", True), ("notify", False)])
def test_a_raised_epoch_is_said_to_hold_the_deadlines_only_if_the_service_says_so(service: str, holds: bool) -> None:
    said = invoke("streams", "epoch", "raise", service, "--reason", "restored")
    assert f"{service}: 1 stream continues in epoch 2" in said
    assert (f"{service}: its deadlines are held" in said) == holds
