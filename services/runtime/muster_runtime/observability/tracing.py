"""Tracing: the spans of commands, events, and deadlines, exported over OTLP if the environment asks for it.

OpenTelemetry's standard variables control it: OTEL_TRACES_EXPORTER=otlp turns it on, with OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, and the other variables of its SDK. Without it, the SDK is not even imported.

Attribute names follow OpenTelemetry's semantic conventions for HTTP, messaging, and databases, and `muster.…` where
those have no name.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from muster_contracts import Envelope
from muster_runtime import spans
from muster_runtime.spans import Span, SpanKind

# How long a stopping process may take to export what it has recorded.
FLUSH_SECONDS = 2.0

_PROTOCOL = "http/protobuf"

_provider: Any = None


class InvalidTracing(ValueError):
    """A variable of OpenTelemetry has a value that Muster does not support."""


def start(service: str, instance: str) -> None:
    """Record and export spans, if the environment says so. Raises InvalidTracing.

    A separate thread exports, so an unreachable collector costs neither time nor unbounded memory: the queue keeps the
    latest 2,048 spans (OTEL_BSP_MAX_QUEUE_SIZE).
    """
    global _provider
    if not _is_asked_for():
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    identity = {"service.namespace": "muster", "service.instance.id": instance}
    resource = Resource.create(identity if named else {**identity, "service.name": f"muster-{service}"})
    try:
        _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise InvalidTracing(f"OTEL_…: {error}") from None
    spans.record_with(_provider.get_tracer("muster_runtime"))


def stop() -> None:
    """Stop recording, and export what was recorded, for at most two seconds."""
    global _provider
    provider, _provider = _provider, None
    spans.record_with(None)
    if provider is not None:
        # It waits for an unreachable collector; a stopping process does not.
        exporting = threading.Thread(target=provider.shutdown, daemon=True)
        exporting.start()
        exporting.join(FLUSH_SECONDS)


def _is_asked_for() -> bool:
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "none"
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter != "otlp":
        raise InvalidTracing(f"OTEL_TRACES_EXPORTER: {exporter!r} must be otlp or none")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := os.environ.get(name, "").strip() or _PROTOCOL) != _PROTOCOL:
            raise InvalidTracing(f"{name}: {protocol!r} must be {_PROTOCOL}")
    return True


def request(traceparent: str | None, ids: Mapping[str, str]) -> AbstractContextManager[Span]:
    """The span of an HTTP request, in the trace that its caller names. `answered` adds the request's details."""
    if not spans.is_recording():
        return spans.NOTHING
    attributes = {f"muster.{name}": value for name, value in ids.items()}
    return spans.begin("HTTP", SpanKind.SERVER, traceparent, attributes)


def answered(span: Span, method: str, route: str, status: int, tenant: str) -> None:
    """Note a request and its response. The path is omitted: a caller may have put anything there."""
    if not span.is_recording():
        return
    span.set_attribute("http.request.method", "_OTHER" if method == "other" else method)
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if tenant:
        span.set_attribute("muster.tenant", tenant)
    if status >= 500:
        spans.fail(span, str(status))


def publication(runs: Iterable[Mapping[str, Any]]) -> AbstractContextManager[Span]:
    """The span of a batch that the relay sends to Kafka."""
    if not spans.is_recording():
        return spans.NOTHING
    batch = list(runs)
    attributes = _messaging("publish", "send", [run["topic"] for run in batch], sum(run["events"] for run in batch))
    name = _named("publish", attributes)
    return spans.follow(name, SpanKind.PRODUCER, (run["traceparent"] for run in batch), attributes)


def application(group: str, envelopes: Iterable[tuple[str, Envelope | None]]) -> AbstractContextManager[Span]:
    """The span of a consumer's transaction that applies these events, each with its topic."""
    if not spans.is_recording():
        return spans.NOTHING
    batch = [(topic, envelope) for topic, envelope in envelopes if envelope is not None]
    attributes = _messaging("apply", "process", [topic for topic, _ in batch], len(batch))
    attributes["messaging.consumer.group.name"] = group
    name = _named("apply", attributes)
    return spans.follow(name, SpanKind.CONSUMER, (envelope.traceparent for _, envelope in batch), attributes)


def deadlines(agency_id: str, kinds: Sequence[str]) -> AbstractContextManager[Span]:
    """The span of deadlines handled in one transaction; it starts a new trace."""
    if not spans.is_recording():
        return spans.NOTHING
    attributes: spans.Attributes = {
        "muster.agency_id": agency_id,
        "muster.deadline.kinds": sorted(set(kinds)),
        "muster.deadlines": len(kinds),
    }
    return spans.begin("handle deadlines", SpanKind.INTERNAL, None, attributes)


def _messaging(operation: str, kind: str, topics: Iterable[str], events: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.batch.message_count": events,
    }
    if len(names := set(topics)) == 1:
        (attributes["messaging.destination.name"],) = names
    return attributes


def _named(operation: str, attributes: Mapping[str, Any]) -> str:
    topic = attributes.get("messaging.destination.name")
    return operation if topic is None else f"{operation} {topic}"
