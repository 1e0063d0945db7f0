"""The operator's commands say what they need before they do anything."""

import sys
from pathlib import Path

import pytest
from joserfc import jws
from typer.testing import CliRunner

from muster_local.home import Home
from muster_local.scopes import SCOPES
from muster_operator import streams
from muster_operator.cli import app
from muster_operator.target import Target

ELSEWHERE = {
    "MUSTER_BILLING_URL": "http://127.0.0.1:1",
    "MUSTER_TOKEN": "token",
    "MUSTER_ADMIN_DSN": "postgresql://admin@127.0.0.1:1/muster",
    "MUSTER_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "MUSTER_TOPIC_PREFIX": "prefix.",
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["parked", "list"], "MUSTER_<SERVICE>_URL is not set"),
        (["parked", "replay"], "pass a topic and an agency, --agency, or --all"),
        (["parked", "replay", "--all", "--agency", "NASA"], "pass a topic and an agency, --agency, or --all"),
        (["parked", "discard", "muster.billing.term", "NASA", "--record", "0@1"], "Missing option '--reason'"),
        (["parked", "discard", "muster.billing.term", "NASA", "--reason", "junk"], "Missing option '--record'"),
        (
            ["parked", "discard", "muster.billing.term", "NASA", "--reason", "junk", "--record", "first"],
            "--record first: must be PARTITION@OFFSET, such as 2@1071",
        ),
        (["streams", "gap", "accept", "muster.billing.term", "NASA"], "Missing option '--reason'"),
        (["streams", "rewind", "billing"], "Missing option '--reason'"),
        (["streams", "rewind", "billing", "--reason", "restored"], "MUSTER_<SERVICE>_URL is not set"),
        (["streams", "check"], "MUSTER_ADMIN_DSN is not set"),
        (
            ["streams", "pass", "billing", "muster.billing.term", "99", "0", "--reason", "junk"],
            "99: muster.billing.term has the partitions 0 to",
        ),
        (["streams", "--topic", "unknown"], "--topic unknown: must be one of"),
        (["reconcile"], "MUSTER_ADMIN_DSN is not set"),
        (["erase-lost", "NASA", "con_1", "--reason", "lost"], "MUSTER_<SERVICE>_URL is not set"),
        (["rebuild", "notify.directory", "--swap"], "--swap needs a --reason"),
        (["rebuild", "payroll.directory"], "must be a service and its projection, such as 'notify.directory'"),
        (["rebuild", "notify.directory"], "MUSTER_POSTGRES_WORKER_DSN is not set"),
        (["trace", ""], "the ID must not be empty"),
        (["proposals", "list", "--state", "bogus"], "--state: 'bogus' must be one of 'pending', 'approved'"),
        (
            ["agency", "enroll", "NASA", "--seats", "0", "--contact-name", "Ada", "--contact-email", "ada@nasa.gov"],
            "--seats 0: must be at least 1",
        ),
        (["agency", "enroll", "NASA", "--seats", "ten"], "--seats ten: must be an integer"),
        (["streams", "check", "--wait", "long"], "--wait long: must be a number"),
        (["parked", "list", "--service", "bil"], "--service bil: must be one of enrollment"),
        (["streams", "rewind", "bil", "--reason", "restored"], "service bil: must be one of"),
        (["seats", "import", "nope.csv", "--agency", "NASA"], "muster: file: 'nope.csv' does not exist"),
        (["clock", "advance", "--by", "60x"], "--by 60x: must be a whole number"),
        (["clock", "advance", "--by", "99999999d"], "--by 99999999d: must lead to an instant before the year 10000"),
        (["clock", "advance", "--to", "tomorrow"], "--to tomorrow: must be an instant"),
        (["clock", "advance", "--to", "2025-10-05T00:00:00Z", "--by", "1d"], "give --to or --by, not both"),
        (["clock", "advance", "--by", "0d"], "--by 0d: must be more than zero"),
        (["up", "--maintenance", "payroll"], "--maintenance payroll: must be one of"),
        (["up", "--port", "payroll=8005"], "--port payroll=8005: the name must be one of postgres, kafka"),
        (["token", "--scope", "billing:read"], "Missing option '--agency'"),
        (["token", "--scope", "billing:read", "--agency", "nasa"], "--agency nasa: must be an agency's ID"),
        (["token", "--scope", "banana", "--agency", "NASA"], "--scope banana: must be one of"),
    ],
)
def test_missing_or_invalid_arguments_are_named(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["address", "billing"],
        ["clock", "show"],
        ["token", "--scope", "billing:read", "--agency", "NASA"],
        ["logs"],
    ],
)
def test_without_a_stack_the_searched_home_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert f"in {tmp_path}/.muster" in result.output
    elsewhere = CliRunner().invoke(app, arguments, env={"MUSTER_HOME": str(tmp_path / "elsewhere")})
    assert elsewhere.exit_code == 3
    assert f"in {tmp_path}/elsewhere" in elsewhere.output
    assert list(tmp_path.iterdir()) == []


def test_an_operators_command_names_the_home_that_it_searched(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["parked", "list"], env={"MUSTER_HOME": str(tmp_path / "elsewhere")})
    assert result.exit_code == 2
    assert (
        f"no stack is running in {tmp_path}/elsewhere, and MUSTER_<SERVICE>_URL is not set: run muster up, or set it"
        in result.output
    )


def test_an_unknown_scope_is_refused_with_a_list_of_all_scopes(tmp_path: Path) -> None:
    arguments = ["token", "--scope", "billing:read", "--scope", "banana", "--agency", "NASA", "--home", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "1000"})
    assert result.exit_code == 2
    assert all(scope in result.output for scope in SCOPES)
    assert list(tmp_path.iterdir()) == []


def test_a_token_says_for_whom_it_acts(tmp_path: Path) -> None:
    Home(tmp_path).installation([], {})
    for agency in ("NASA", "*"):
        arguments = ["token", "--scope", "billing:read", "--agency", agency, "--home", str(tmp_path)]
        result = CliRunner().invoke(app, arguments)
        assert jws.extract_compact(result.output.strip().encode()).payload.count(f'"agency":"{agency}"'.encode()) == 1


def test_without_a_stack_the_environment_says_where_everything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    target = Target.find(tmp_path, "token").require("urls", "admin_dsn", "kafka")
    assert target.urls == {"billing": "http://127.0.0.1:1"}
    assert (target.token, target.topic_prefix) == ("token", "prefix.")


def test_a_service_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["parked", "list"], env=ELSEWHERE)
    assert result.exit_code == 5
    assert "billing does not answer" in result.output
    wrong = CliRunner().invoke(app, ["parked", "list", "--service", "payroll"], env=ELSEWHERE)
    assert wrong.exit_code == 2


def test_an_address_that_is_not_a_url_is_named() -> None:
    result = CliRunner().invoke(app, ["streams"], env={**ELSEWHERE, "MUSTER_ENROLLMENT_URL": "foo"})
    assert (result.exit_code, result.stderr.startswith("muster: MUSTER_ENROLLMENT_URL must be a URL")) == (2, True)


def test_a_service_without_an_address_is_named_without_an_option_that_the_command_lacks() -> None:
    result = CliRunner().invoke(app, ["windows", "show", "NASA"], env=ELSEWHERE)
    assert (result.exit_code, "entitlements" in result.stderr, "--service" in result.stderr) == (2, True, False)


def test_an_agency_without_a_stream_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: object) -> dict[object, object]:
        return {}

    monkeypatch.setattr(streams, "_states", none)
    result = CliRunner().invoke(app, ["streams", "--agency", "nasa"], env=ELSEWHERE)
    assert (result.exit_code, result.stderr) == (3, "muster: no stream of agency nasa\n")
    assert CliRunner().invoke(app, ["streams"], env=ELSEWHERE).stdout == "There are no streams yet.\n"


@pytest.mark.parametrize("arguments", [["show", "prp_\udcff"], ["reject", "prp_\udcff", "--reason", "none"]])
def test_an_argument_that_is_not_utf_8_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["proposals", *arguments], env=ELSEWHERE)
    assert (result.exit_code, result.stderr) == (2, "muster: 'prp_\\udcff' must be text in UTF-8\n")


def test_text_that_cannot_be_sent_is_printed_only_if_it_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(*_: object) -> None:
        "pä55word".encode("ascii")

    monkeypatch.setattr(Target, "find", send)
    for arguments, what in (["pä55word", "'p\\xe455word'"], ["prp_1", "an argument or a setting"]):
        result = CliRunner().invoke(app, ["proposals", "show", arguments])
        assert (result.exit_code, result.stderr) == (2, f"muster: {what} must be text in ASCII\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extend", "NASA", "canvas", "--reason", "pilot"], "pass either --ends-on or --ends-at"),
        (["correct", "NASA", "canvas", "--starts-on", "2025-08-20"], "Missing option '--reason'"),
        (["end", "NASA", "--reason", "pilot"], "Missing argument 'feature'"),
        (
            ["extend", "NASA", "canvas", "--reason", "pilot", "--ends-on", "2025-08-20", "--ends-at", "2025-08-20T00Z"],
            "pass --ends-on or --ends-at, not both",
        ),
    ],
)
def test_a_decision_names_the_option_that_it_lacks(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["windows", *arguments], env=ELSEWHERE | {"COLUMNS": "200"})
    assert (result.exit_code, said in result.stderr, len(result.stderr.splitlines())) == (2, True, 1), result.stderr


def test_the_help_writes_a_record_as_readiness_does() -> None:
    result = CliRunner().invoke(app, ["streams", "pass", "--help"], env={"COLUMNS": "200"})
    assert "topic[partition]@offset" in result.output


ELSEWHERES = ("MUSTER_POSTGRES_DSN", "MUSTER_KAFKA_BOOTSTRAP", "MUSTER_STACK")


@pytest.mark.parametrize("variable", ELSEWHERES)
def test_a_secured_stack_is_not_created_on_other_peoples_servers(tmp_path: Path, variable: str) -> None:
    environment = {**dict.fromkeys(ELSEWHERES), variable: "elsewhere"}
    result = CliRunner().invoke(app, ["up", "--secure", "--home", str(tmp_path / "home")], env=environment)
    assert result.exit_code == 2
    assert f"unset {variable}" in result.output


def test_an_error_of_a_services_own_command_is_reported_as_the_commands_error() -> None:
    environment = ELSEWHERE | {"MUSTER_POSTGRES_WORKER_DSN": "postgresql://worker@127.0.0.1:1/muster"}
    result = CliRunner().invoke(app, ["rebuild", "notify.foo"], env=environment)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("muster: ")


def test_a_services_own_command_that_is_killed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -KILL $$\n", "utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    environment = ELSEWHERE | {"MUSTER_POSTGRES_WORKER_DSN": "postgresql://worker@127.0.0.1:1/muster"}
    result = CliRunner().invoke(app, ["rebuild", "notify.directory"], env=environment)
    assert (result.exit_code, result.stderr) == (1, "muster: the service's command was killed by SIGKILL\n")


def test_a_process_without_a_log_is_named_with_the_processes_that_have_one(tmp_path: Path) -> None:
    log = Home(tmp_path).log("billing")
    log.parent.mkdir(mode=0o700)
    log.touch(0o600)
    result = CliRunner().invoke(app, ["logs", "entitlement", "--home", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (2, "muster: PROCESS entitlement: must be one of billing\n")
