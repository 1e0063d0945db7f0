"""A trace collector: a real HTTP server that receives OTLP and keeps every span and every byte."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent


@dataclass(frozen=True)
class Span:
    """A span as the collector received it. IDs are hexadecimal; `links` are pairs of trace and span IDs."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: Mapping[str, Any]
    links: Sequence[tuple[str, str]]
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """The received spans and bytes. Clear `answers` to leave exporters without a reply."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    received: bytes = b""
    answers: threading.Event = field(default_factory=threading.Event)

    def of_trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def take(self, body: bytes) -> None:
        """Keep an exporter's request."""
        self.received += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_span(sent, resource) for sent in scope.spans]


def _span(sent: Sent, resource: Mapping[str, Any]) -> Span:
    return Span(
        name=sent.name,
        kind=Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        trace_id=sent.trace_id.hex(),
        span_id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        failed=sent.status.code == sent.status.STATUS_CODE_ERROR,
        attributes=_attributes(sent.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in sent.links],
        resource=resource,
    )


def _attributes(sent: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in sent}


def _value(sent: Any) -> Any:
    kind = sent.WhichOneof("value")
    value = getattr(sent, kind)
    return [_value(each) for each in value.values] if kind == "array_value" else value


@contextmanager
def collecting(host: str = "127.0.0.1", port: int = 0, *, answers: bool = True) -> Iterator[Collector]:
    """A collector, by default on a free port. Without `answers`, exporters wait for a reply until the block ends."""
    collector = Collector()
    if answers:
        collector.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.answers.wait()
            collector.take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    collector.url = f"http://{host}:{server.server_port}"
    try:
        yield collector
    finally:
        collector.answers.set()
        server.shutdown()
        server.server_close()
