"""Log lines: one JSON object each, with their ids, and never a secret or a person's data."""

import gc
import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import asyncpg
import pytest
import structlog
from pydantic import BaseModel, ValidationError

from muster_runtime.observability import telemetry
from muster_runtime.settings import Settings

CANARY = "canary-4711"


@pytest.fixture
def written() -> Iterator[StringIO]:
    """What is logged, once configured as a process does it."""
    gc.collect()  # leftovers of earlier tests log when they are collected, and here that would be a line
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    telemetry.configure(Settings(environment="sandbox", instance="sample-1"), "sample")
    structlog.configure(cache_logger_on_first_use=False)  # later tests have their own
    stream = StringIO()
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(written: StringIO) -> list[dict[str, Any]]:
    """What was logged, without lines from the span exporter of an earlier test, which may outlive its test."""
    said = [json.loads(line) for line in written.getvalue().splitlines()]
    return [line for line in said if not line["logger"].startswith("opentelemetry")]


def test_a_line_has_the_service_and_the_bound_ids(written: StringIO) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="c-1", request_id="r-1"):
        structlog.get_logger("muster").info("relayed", events=3)
    (line,) = lines(written)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "relayed",
        "logger": "muster",
        "service": "sample",
        "instance": "sample-1",
        "correlation_id": "c-1",
        "request_id": "r-1",
        "events": 3,
    }


def test_a_librarys_repeated_message_is_logged_once_in_a_while_and_ours_each_time(written: StringIO) -> None:
    for attempt in range(100):
        logging.getLogger("aiokafka").error("Unable to connect, attempt %s", attempt)
        logging.getLogger("aiokafka").error("Unable to update metadata")
        structlog.get_logger("muster").warning("relay_failed")
    said = [line["event"] for line in lines(written)]
    assert said[:2] == ["Unable to connect, attempt 0", "Unable to update metadata"]
    assert said[2:] == ["relay_failed"] * 100


def test_a_librarys_lines_below_a_warning_are_not_logged(written: StringIO) -> None:
    """Below that level, a library may quote a request, a URL, or a record verbatim."""
    logging.getLogger().setLevel("DEBUG")
    for library in ("httpx", "httpcore.connection", "of.nobody"):
        logging.getLogger(library).info("POST https://agency.example/%s", CANARY)
    structlog.get_logger("muster").debug("ours")
    assert [line["event"] for line in lines(written)] == ["ours"]


@pytest.mark.parametrize("library", ["uvicorn.error", "faststream", "aiokafka.consumer"])
def test_libraries_write_the_same_lines(written: StringIO, library: str) -> None:
    logging.getLogger(library).warning("the broker %s is gone", 7)
    (line,) = lines(written)
    assert line["event"] == "the broker 7 is gone"
    assert line["service"] == "sample"
    assert line["level"] == "warning"


def test_secrets_are_never_written(written: StringIO) -> None:
    token = f"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.{CANARY}"
    log = structlog.get_logger("muster")
    log.info("started", postgres_dsn=CANARY, webhook_secret=CANARY, headers={"Authorization": CANARY})
    log.info(f"cannot reach postgresql://muster:{CANARY}@127.0.0.1/muster")
    log.info("refused", header=f"Bearer {CANARY}", tried=[token])
    logging.getLogger("aiokafka").warning("with %s", token)
    logged = written.getvalue()
    assert CANARY not in logged
    assert len(lines(written)) == 4
    assert "@127.0.0.1/muster" in logged


class Person(BaseModel):
    email: int


def database_error() -> asyncpg.PostgresError:
    error = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    error.detail = f"Key (email)=({CANARY}) already exists."
    return error


def encoding_error() -> asyncpg.PostgresError:
    return asyncpg.DataError(f"invalid input for query argument $1: '{CANARY}'")


def validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Person.model_validate({"email": CANARY})
    return raised.value


@pytest.mark.parametrize("make", [database_error, encoding_error, validation_error])
def test_an_error_is_logged_without_the_row_or_the_input(written: StringIO, make: Any) -> None:
    error = make()
    assert CANARY in f"{error} {getattr(error, 'detail', '')}"
    try:
        raise error
    except Exception:
        structlog.get_logger("muster").exception("handler failed")
    (line,) = lines(written)
    assert line["error"].startswith(type(error).__name__)
    assert any("test_telemetry.py" in place for place in line["stack"])
    assert CANARY not in json.dumps(line)


def test_a_line_is_bounded_and_says_where_it_was_cut(written: StringIO) -> None:
    before = telemetry.LOG_LINES_CUT._value.get()
    structlog.get_logger("test").warning("much", text="a" * 100_000, items=["b"] * 1_000, number=10**30, short="c")
    (line,) = lines(written)
    assert len(written.getvalue()) < 10_000
    assert line["text"].endswith("a[cut]")
    assert line["items"][-1] == "[cut]"
    assert line["short"] == "c"
    assert telemetry.LOG_LINES_CUT._value.get() == before + 1
