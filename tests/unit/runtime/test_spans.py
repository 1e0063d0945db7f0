"""Spans without servers: what belongs to which trace, what is omitted, and what an unreachable collector costs."""

import importlib
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from muster_runtime import spans
from muster_runtime.context import Context
from muster_runtime.database import traced
from muster_runtime.errors import Conflict
from muster_runtime.observability import tracing
from muster_runtime.spans import SpanKind
from tests.support.collector import Collector, collecting

TRACE = "ab" * 16
SAMPLED = f"00-{TRACE}-00000000000000aa-01"
UNSAMPLED = f"00-{TRACE}-00000000000000aa-00"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which this process exports, until `tracing.stop`."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing.start("probe", "probe-1")
        yield collector
        tracing.stop()


def test_without_the_variables_nothing_is_recorded_and_no_sdk_imported() -> None:
    program = """
import os, sys
import muster_notify.bootstrap, muster_runtime.cli
from muster_runtime import spans
from muster_runtime.observability import tracing
for asked in ({}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}):
    os.environ.update(asked)
    tracing.start("probe", "probe-1")
    assert not spans.is_recording()
    assert tracing.request(None, {}) is tracing.publication([]) is spans.NOTHING
    tracing.stop()
unwanted = ("opentelemetry.sdk", "opentelemetry.exporter", "requests")
print(*(name for name in sys.modules if name.startswith(unwanted)))
"""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: 'zipkin' must be otlp or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' must be http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "OTEL_…: max_queue_size must be a positive integer."),
    ],
)
def test_an_unsupported_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, rule: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with pytest.raises(tracing.InvalidTracing) as refused:
        tracing.start("probe", "probe-1")
    assert str(refused.value) == rule
    assert not spans.is_recording()


def test_a_transaction_carries_the_trace_on_and_with_tracing_off_it_stays_as_it_was(collector: Collector) -> None:
    context = Context("ann", "cor_1", traceparent=SAMPLED)
    with tracing.request(SAMPLED, {"request_id": "r"}) as request:
        with traced.transaction("billing", ["NASA"]):
            carried = traced.carried_on(context)
        tracing.answered(request, "POST", "/v1/terms/{term_id}", 201, "NASA")
    assert traced.carried_on(context) == context
    assert traced.transaction("billing", ["NASA"]) is spans.NOTHING  # a worker's begins no trace
    tracing.stop()
    write, server = collector.spans
    assert carried.traceparent == f"00-{TRACE}-{write.span_id}-01"
    assert (server.name, server.kind, server.parent_id) == ("POST /v1/terms/{term_id}", "SERVER", SAMPLED.split("-")[2])
    assert (write.name, write.kind, write.parent_id) == ("write billing", "CLIENT", server.span_id)
    assert server.resource["service.name"] == "muster-probe"
    assert server.resource["service.instance.id"] == "probe-1"


def test_an_unsampled_trace_continues_unsampled_and_is_not_exported(collector: Collector) -> None:
    with tracing.request(UNSAMPLED, {}):
        with traced.transaction("billing", ["NASA"]):
            carried = traced.carried_on(Context("ann", "cor_1")).traceparent
        assert carried is not None
        assert carried.startswith(f"00-{TRACE}-")
        assert carried.endswith("-00")
    runs = [{"topic": "t", "events": 1, "traceparent": each} for each in (UNSAMPLED, None, "t", "00-0-0-01")]
    assert tracing.publication(runs) is spans.NOTHING
    assert spans.traceparent() is None
    tracing.stop()
    assert collector.spans == []


def test_a_batch_joins_the_first_sampled_trace_and_links_to_all_up_to_a_bound(collector: Collector) -> None:
    traces = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 301)]
    runs = [{"topic": "t", "events": 2, "traceparent": each} for each in (UNSAMPLED, "nonsense", *traces, traces[0])]
    with tracing.publication(runs):
        pass
    tracing.stop()
    (span,) = collector.spans
    assert (span.name, span.kind, span.trace_id) == ("publish t", "PRODUCER", traces[0].split("-")[1])
    assert list(span.links) == [tuple(each.split("-")[1:3]) for each in traces[: spans.MAX_LINKS]]
    assert span.attributes["muster.traces"] == 300
    assert span.attributes["messaging.batch.message_count"] == 2 * len(runs)


def test_only_a_valid_traceparent_is_passed_on() -> None:
    assert spans.valid(SAMPLED) == SAMPLED
    for other in (None, "t", "00-" + "0" * 32 + SAMPLED[35:], "ff" + SAMPLED[2:], SAMPLED + "\r\nx: y"):
        assert spans.valid(other) is None


def test_an_effect_stays_in_the_trace_of_its_cause() -> None:
    here = Context("billing", "cor_1", traceparent=f"00-{TRACE}-00000000000000bb-01")
    other = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    assert here.traceparent_after(SAMPLED) == here.traceparent
    assert here.traceparent_after(other) == other
    assert here.traceparent_after(None) is None
    assert Context("billing", "cor_1").traceparent_after(SAMPLED) == SAMPLED


def test_an_error_is_named_by_its_type_and_a_refusal_is_not_an_error(collector: Collector) -> None:
    with pytest.raises(ValueError, match="canary"), spans.begin("broken", SpanKind.INTERNAL, None, {}):
        raise ValueError("canary")
    with pytest.raises(Conflict), spans.begin("refused", SpanKind.INTERNAL, None, {}):
        raise Conflict("canary")
    with tracing.request(None, {}), traced.transaction("billing", ["canary@agency.gov"]):
        pass
    tracing.stop()
    broken, refused, write, _ = collector.spans
    assert (broken.failed, broken.attributes) == (True, {"error.type": "ValueError"})
    assert (refused.failed, refused.attributes) == (False, {"muster.refusal": "conflict"})
    assert "muster.agency_id" not in write.attributes
    assert b"canary" not in collector.received


def test_the_names_of_attributes_are_those_of_the_conventions(collector: Collector) -> None:
    with tracing.request(SAMPLED, {"request_id": "r"}) as request:
        with traced.transaction("billing", ["NASA"]), tracing.deadlines("NASA", ["b", "a"]):
            pass
        tracing.answered(request, "POST", "/v1/terms", 500, "NASA")
    with tracing.publication([{"topic": "t", "events": 2, "traceparent": SAMPLED}]):
        pass
    tracing.stop()
    used = {name for span in collector.spans for name in [*span.attributes, *span.resource]}
    assert {name for name in used if not name.startswith("muster.")} <= _conventions() | {"service.instance.id"}


def test_an_unreachable_collector_costs_no_time_and_does_not_flood_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    with collecting(answers=False) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing.start("probe", "probe-1")
        slowest = 0.0
        for _ in range(10_000):
            began = time.perf_counter()
            with tracing.request(None, {}):
                pass
            slowest = max(slowest, time.perf_counter() - began)
        began = time.monotonic()
        tracing.stop()
        took = time.monotonic() - began
        assert took < tracing.FLUSH_SECONDS + 1
        assert slowest < 5, "a span waited for the collector, on which the exporter gives up after ten seconds"
        assert collector.spans == []
    assert len(caplog.records) < 5


def _conventions() -> set[str]:
    """Every name of an attribute in OpenTelemetry's semantic conventions."""
    names = set()
    for name in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            constants = vars(importlib.import_module(module.name))
            names |= {value for value in constants.values() if isinstance(value, str)}
    return names
