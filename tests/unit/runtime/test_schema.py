"""The schema commands, which need none of the service's own settings."""

import json
import os
import sys

import pytest

from muster_notify.schema import SCHEMA
from muster_runtime.cli import run
from muster_runtime.exit_statuses import BAD_INPUT, TIMED_OUT

AWAY = "postgresql://notify_api:Mh4xqTzKq9cV2LrB@127.0.0.1:1/muster?sslmode=verify-full"


@pytest.mark.parametrize(
    ("command", "environment", "status", "said"),
    [
        (["schema"], {}, 0, ""),
        (["schema", "--database"], {}, BAD_INPUT, "MUSTER_POSTGRES_WORKER_DSN and"),
        (["wait-for-schema", "--timeout=0"], {"MUSTER_POSTGRES_API_DSN": AWAY}, TIMED_OUT, "MUSTER_POSTGRES_API_DSN: "),
        (["migrate"], {}, BAD_INPUT, "MUSTER_POSTGRES_OWNER_DSN is not set"),
        (["migrate"], {"MUSTER_POSTGRES_OWNER_DSN": AWAY.partition("?")[0]}, BAD_INPUT, "production requires sslmode="),
    ],
)
def test_a_pod_with_a_databases_secret_alone_can_be_asked(
    command: list[str],
    environment: dict[str, str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["muster_notify", *command])
    with pytest.raises(SystemExit) as ended:
        run("muster_notify.bootstrap", SCHEMA)
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == status, err
    assert said in err
    if not status:
        window = json.loads(out)
        assert window["service"] == "notify"
        assert window["schema_min"] <= window["schema_head"]
