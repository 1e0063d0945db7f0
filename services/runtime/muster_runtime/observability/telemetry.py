"""Logs as JSON lines, and the Prometheus metrics that every service shares."""

import logging
import math
import re
import sys
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from muster_runtime.errors import describe
from muster_runtime.settings import Settings

OUTBOX_ROWS = Gauge(
    "muster_outbox_rows", "Rows in the outbox (runs of events) that Kafka has not acknowledged.", ["service"]
)
OUTBOX_OLDEST_SECONDS = Gauge("muster_outbox_oldest_seconds", "Age of the oldest row in the outbox.", ["service"])
OLDEST_SNAPSHOT_SECONDS = Gauge(
    "muster_oldest_snapshot_seconds",
    "How long the oldest snapshot of the database has been held. Until it is released, vacuum keeps deleted rows.",
    ["service"],
)
RELAYED = Counter("muster_relayed", "Events that Kafka has acknowledged.", ["service", "topic"])
APPLIED = Counter("muster_applied", "Events applied by a handler.", ["service", "topic"])
DUPLICATES = Counter("muster_duplicates", "Events skipped because they were already applied.", ["service", "topic"])
GAPS = Counter("muster_gaps", "Streams whose next sequence was missing. Must stay at zero.", ["service", "topic"])
NEW_EPOCHS = Counter("muster_new_epochs", "Streams that continued in a higher epoch.", ["service", "topic"])
PARKED = Gauge("muster_parked", "Streams that are parked because an event could not be applied.", ["service"])
LAG = Gauge("muster_lag", "Records in this process's partitions that it has not applied yet.", ["service"])
READY = Gauge("muster_ready", "1 if the process is ready; if it is 0, /health/ready says why.", ["service"])
WARNINGS = Gauge(
    "muster_warnings",
    "Warnings that /health/ready shows, except those about something that has an alert of its own.",
    ["service", "about"],
)
ROLE_RUNNING = Gauge(
    "muster_role_running",
    "For each role that the service needs: 1 if this process runs it, 0 if not.",
    ["service", "role"],
)
PARKED_RECORDS = Gauge("muster_parked_records", "Records waiting in parked streams.", ["service"])
PARKED_DEADLINES = Gauge("muster_parked_deadlines", "Deadlines parked because they could not be handled.", ["service"])
PAUSED_PARTITIONS = Gauge(
    "muster_paused_partitions",
    "Partitions paused for one agency, or because their topic has the wrong number of partitions.",
    ["service"],
)
APPLY_RETRIES = Counter("muster_apply_retries", "Batches retried after a failure.", ["service"])
UNKNOWN_TYPES = Counter(
    "muster_unknown_types",
    "Events skipped because the contracts of this release lack their type.",
    ["service", "topic"],
)
DEADLINE_LATENESS_SECONDS = Histogram(
    "muster_deadline_lateness_seconds",
    "Seconds from when a deadline was due until it was handled.",
    ["service", "kind"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600),
)
DEADLINE_OVERDUE_SECONDS = Gauge(
    "muster_deadline_overdue_seconds", "How long the oldest unhandled deadline has been due.", ["service"]
)
DEADLINES_HELD_SECONDS = Gauge(
    "muster_deadlines_held_seconds",
    "How long no deadline has been handled because the database lost commits; 0 if they are handled.",
    ["service"],
)
HANDLER_SECONDS = Histogram(
    "muster_handler_seconds",
    "Time that a handler of events or deadlines took to process one run.",
    ["service", "handler"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)
PURGED = Counter("muster_purged", "Expired rows that were deleted.", ["service", "table"])
PURGE_OVERDUE_SECONDS = Gauge(
    "muster_purge_overdue_seconds",
    "How long ago the oldest row of a table should have been deleted; normally at most an hour.",
    ["service", "table"],
)
AUDIT_UNSEALED_SECONDS = Gauge(
    "muster_audit_unsealed_seconds", "Age of the oldest unsealed audit row; normally at most two minutes.", ["service"]
)
ISSUER_KEYS_AGE_SECONDS = Gauge(
    "muster_issuer_keys_age_seconds",
    "Seconds since the token issuer's keys were read; normally at most ten minutes.",
    ["service"],
)
BREAK_GLASS = Counter("muster_break_glass", "Requests with a break-glass token.", ["service"])
HTTP_IN_WORK = Gauge("muster_http_in_work", "Requests in progress.", ["service"])
HTTP_REFUSED = Counter(
    "muster_http_refused", "Requests refused because the process, or the tenant's share of it, was full.", ["service"]
)
HTTP_RATE_LIMITED = Counter(
    "muster_http_rate_limited",
    "Requests refused because they exceeded a quota: token, agency, personal-reads.",
    ["service", "quota"],
)
HTTP_CONNECTIONS = Gauge("muster_http_connections", "Open connections of HTTP clients.", ["service"])
HTTP_CONNECTIONS_CLOSED = Counter(
    "muster_http_connections_closed",
    "Connections closed at a limit: total, address, head-size, head-time, unread, pipelining, upgrade.",
    ["service", "reason"],
)
POOL_IN_USE = Gauge("muster_pool_in_use", "Connections to Postgres in use.", ["service", "role"])
LOG_LINES_CUT = Counter("muster_log_lines_cut", "Log lines cut because they exceeded a limit.")
LOG_LINES_WITHHELD = Counter(
    "muster_log_lines_withheld", "Libraries' log lines suppressed because they repeated a recent one."
)
HTTP_REQUEST_SECONDS = Histogram(
    "muster_http_request_seconds",
    "Time from a request's arrival to the end of its response, by route template.",
    ["service", "method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)

_LIBRARIES = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "faststream",
    "aiokafka",
    "httpcore",
    "httpx",
    "opentelemetry",
    "urllib3",
)

_SECRET_NAME = re.compile(r"authorization|password|secret|token|dsn|cookie|api_?key", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"(?P<url>(?<=://)[^\s/:@]*:[^\s/@]+(?=@))"  # user and password of a URL
    r"|(?P<bearer>(?<=Bearer )[^\s\"']+)"
    r"|(?P<jwt>\beyJ[\w-]+\.[\w-]+\.[\w-]*)",
)
_REDACTED = "[redacted]"

# Limits for one value of a log line: characters of a text, items of a list (such as the frames of a stack).
MAX_LOGGED_TEXT = 4_000
MAX_LOGGED_ITEMS = 60

# How long a library's repeated line is suppressed: a client whose broker is down logs 130 times per second.
REPEATED_AFTER_SECONDS = 10
_REMEMBERED_LINES = 1_000


def configure(settings: Settings, service_name: str) -> None:
    """Send every log line of the process, ours and the libraries', to standard output as JSON.

    Each line has `time` (UTC), `level`, `event`, `service`, `instance`, and whatever is bound in structlog's context
    variables: request, correlation, and causation IDs.
    """

    def identify(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**line, "service": service_name, "instance": settings.instance}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        identify,
        _describe_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_OfLibraries())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact,
                _bound,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    level = settings.log_level.upper()
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
        library.setLevel("WARNING" if level in {"DEBUG", "INFO"} else level)


class _OfLibraries(logging.Filter):
    """Suppresses a library's recently repeated lines, ignoring their arguments, and everything below a warning.

    Below a warning, libraries quote requests, URLs, and records in full. Our own lines all pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.msg, str):  # structlog passes a mapping
            return True
        if record.levelno < logging.WARNING:
            return False
        line, now = (record.name, record.msg), time.monotonic()
        if now < self._said_at.get(line, -math.inf) + REPEATED_AFTER_SECONDS:
            LOG_LINES_WITHHELD.inc()
            return False
        if len(self._said_at) >= _REMEMBERED_LINES:
            self._said_at.clear()
        self._said_at[line] = now
        return True


def _describe_exception(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = line.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        line["error"] = describe(error)
        line["stack"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
    return line


def _redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _REDACTED if _SECRET_NAME.search(name) else _redact_value(value) for name, value in line.items()}


def _bound(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut values that would make a line too long, and mark the cut."""
    bounded = {name: _bound_value(value) for name, value in line.items()}
    if bounded != line:
        LOG_LINES_CUT.inc()
    return bounded


def _bound_value(value: object) -> object:
    if isinstance(value, list | tuple):
        kept = value if len(value) <= MAX_LOGGED_ITEMS else [*value[:MAX_LOGGED_ITEMS], "[cut]"]
        return [_bound_value(item) for item in kept]
    text = value if isinstance(value, str) else None if isinstance(value, int | float | bool | None) else str(value)
    return value if text is None or len(text) <= MAX_LOGGED_TEXT else text[:MAX_LOGGED_TEXT] + "[cut]"


def _redact_value(value: object) -> object:
    if isinstance(value, str):
        return _SECRET_VALUE.sub(_REDACTED, value)
    if isinstance(value, dict):
        return {k: _REDACTED if _SECRET_NAME.search(str(k)) else _redact_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(item) for item in value]
    return value
