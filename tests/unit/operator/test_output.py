"""What a command prints, for people and for programs, and how it exits."""

import json
from datetime import datetime

import httpx
import pytest
import typer

from muster_operator.failures import BadInput, CommandFailed, NotFound, Refused, TimedOut, Unreachable
from muster_operator.output import Answer, in_utc, show, table
from muster_operator.service import no_answer, require_success
from muster_runtime.text import count

LONG = "x" * 300


def test_piped_output_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    show(Answer({}, table(("reason", "next"), [(LONG, "last")])), as_json=False)
    show(Answer({}, LONG), as_json=False)
    _, row, line = capsys.readouterr().out.splitlines()
    assert row.split() == [LONG, "last"]
    assert line == LONG


def test_numbers_and_instants() -> None:
    assert [count(number, "seal") for number in (0, 1, 2, 2000)] == ["0 seals", "1 seal", "2 seals", "2,000 seals"]
    assert count(2, "agency", "agencies") == "2 agencies"
    assert in_utc(datetime.fromisoformat("2025-08-06T02:00:00+02:00")) == "2025-08-06T00:00:00Z"


def test_with_json_the_output_is_only_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        show(Answer({"items": [LONG]}, "for people", ok=False), as_json=True)
    assert ended.value.exit_code == 1
    assert json.loads(capsys.readouterr().out) == {"items": [LONG]}


@pytest.mark.parametrize(
    ("status", "raised", "said"),
    [
        (400, BadInput, "NASA"),
        (422, BadInput, "NASA"),
        (404, NotFound, "NASA"),
        (403, Refused, "NASA"),
        (409, Refused, "NASA"),
        (503, Refused, "No such thing: NASA"),
        (502, Refused, "502 Bad Gateway"),
    ],
)
def test_a_services_error_is_reported_in_its_words(status: int, raised: type[CommandFailed], said: str) -> None:
    problem = {"title": "No such thing", "detail": "NASA"}
    reply = httpx.Response(status, text="<html>") if status == 502 else httpx.Response(status, json=problem)
    with pytest.raises(raised, match=f"^billing: {said}$"):
        require_success("billing", reply)


def test_every_invalid_value_is_reported() -> None:
    errors = [
        {"field": "seats", "value": "-1", "rule": "must be at least 1"},
        {"field": "name", "value": None, "rule": "is required"},
    ]
    problem = {"type": "urn:muster:problem:invalid-input", "title": "The input is invalid", "errors": errors}
    with pytest.raises(BadInput, match=r"^billing: seats: '-1' is invalid: must be at least 1; name: is required$"):
        require_success("billing", httpx.Response(422, json=problem))


def test_a_slow_service_is_distinguished_from_an_unreachable_one() -> None:
    assert isinstance(no_answer("billing", httpx.ReadTimeout("")), TimedOut)
    assert isinstance(no_answer("billing", httpx.ConnectError("refused")), Unreachable)
