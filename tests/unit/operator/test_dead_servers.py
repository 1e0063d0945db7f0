"""Every command that reads before it changes anything says in one line which server does not answer."""

import secrets
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from muster_contracts import SERVICES
from muster_contracts.billing import TermStarted
from muster_operator import topic_plan
from muster_operator.cli import app
from muster_operator.subscribers.registry import Registry, checked
from muster_runtime.database.sessions import NO_ADDRESS

DEAD = {
    **{f"MUSTER_{service.upper()}_URL": "http://127.0.0.1:1" for service in SERVICES},
    "MUSTER_TOKEN": "token",
    "MUSTER_ADMIN_DSN": "postgresql://admin@127.0.0.1:1/muster",
    "MUSTER_KAFKA_BOOTSTRAP": "127.0.0.1:1",
}

COMMANDS = (
    "agency list",
    "agency show NASA",
    "audit export --agency NASA --from 2025-01-01 --to 2025-02-01 --service billing --out rows.csv",
    "audit reads",
    "audit verify",
    "catalog draft",
    "catalog show",
    "databases plan",
    "deadlines list",
    "erase-lost NASA con_1 --reason lost",
    "grants list NASA",
    "parked list",
    "parked show muster.billing.term NASA",
    "proposals list",
    "proposals show prp_1",
    "reconcile",
    "rollback-check --to 0.1.0",
    "streams",
    "streams check",
    "subscribers list",
    "topics plan",
    "topics plan --acls",
    "trace cor_1",
    "windows show NASA",
)


@pytest.mark.parametrize("dsn", ["postgresql://admin:pa/ss@host/muster", "postgresql://admin:pa[ss@host/muster"])
@pytest.mark.parametrize(
    "command",
    ["databases plan", "erase-lost NASA con_1 --reason lost", "reconcile", "rollback-check --to 0.1.0", "trace cor_1"],
)
def test_an_address_of_postgres_that_cannot_be_parsed_is_not_quoted(command: str, dsn: str) -> None:
    result = CliRunner().invoke(app, command.split(), env=DEAD | {"MUSTER_ADMIN_DSN": dsn})
    said = f"muster: MUSTER_ADMIN_DSN is {NO_ADDRESS}\n"
    assert (result.exit_code, result.stderr, result.stdout) == (2, said, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreachable_server_is_named_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    facts = {
        "owner": "Treasury",
        "contact": "data@treasury.example",
        "purpose": "A dashboard",
        "review": date(2099, 1, 1),
        "topics": [TermStarted.topic],
        "reads": [TermStarted.event_type],
    }
    Registry.read(tmp_path / "subscribers.toml", may_be_missing=True).put(checked("dash", facts))
    result = CliRunner().invoke(app, command.split(), env=DEAD)
    assert result.exit_code == 5, result.output
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "command",
    ["audit verify", "reconcile", "streams check", "subscribers list", "topics apply", "topics plan", "trace cor_1"],
)
def test_certificate_files_that_cannot_be_used_are_bad_input(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "subscribers.toml").touch()
    secured = {
        "MUSTER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "MUSTER_KAFKA_USERNAME": "admin",
        "MUSTER_KAFKA_PASSWORD": secrets.token_hex(),
        "MUSTER_KAFKA_CA_FILE": "nowhere.pem",
    }
    result = CliRunner().invoke(app, command.split(), env=DEAD | secured)
    said = "muster: the certificate files of Kafka cannot be used: [Errno 2] No such file or directory\n"
    assert (result.exit_code, result.stderr, result.stdout) == (2, said, "")


def test_a_timeout_of_kafka_is_not_reported_as_one_of_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_arguments: object, **_options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(topic_plan, "apply", never)
    result = CliRunner().invoke(app, ["topics", "apply"], env=DEAD)
    assert (result.exit_code, result.stderr) == (6, "muster: Kafka did not answer in time\n")
