"""Spans: what a process does for a request, an event, or a deadline, in OpenTelemetry's terms.

Until `observability.tracing` starts recording, each function here returns at once. A span contains IDs, names of routes
and topics, and counts; never a path, a payload, or an error's message, all of which may contain personal data.

A trace is named by its `traceparent` (W3C Trace Context, 3.2). `tracestate` is not propagated.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import Span as Span
from opentelemetry.trace import SpanKind as SpanKind
from opentelemetry.util.types import AttributeValue

from muster_runtime.errors import PermanentError

Attributes = Mapping[str, AttributeValue]

# The maximum number of traces that a batch's span links to.
MAX_LINKS = 128

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# The last characters of a sampled trace's flags: the lowest bit is set.
_ODD = frozenset("13579bdf")

# Stands in for a span that is not recorded.
NOTHING: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)

# Used instead of the current context, which a client's request may inherit from the previous request on its connection.
_EMPTY = contexts.Context()

_tracer: trace.Tracer | None = None


def record_with(tracer: trace.Tracer | None) -> None:
    """Record spans with a tracer from now on; with None, stop recording."""
    global _tracer
    _tracer = tracer


def is_recording() -> bool:
    """Whether spans are recorded at all."""
    return _tracer is not None


def begin(name: str, kind: SpanKind, traceparent: str | None, attributes: Attributes) -> AbstractContextManager[Span]:
    """A span in the trace that a traceparent names, or the first span of a new trace."""
    if _tracer is None:
        return NOTHING
    context = _within(_context_of(traceparent)) if traceparent and valid(traceparent) else _EMPTY
    return _Current(_tracer.start_span(name, context, kind, attributes))


def follow(
    name: str, kind: SpanKind, traceparents: Iterable[str | None], attributes: Attributes
) -> AbstractContextManager[Span]:
    """A span for a batch with several causes. It belongs to the first sampled trace, and links to all of them.

    There is no span if no trace is sampled: a batch does not start a trace.
    """
    if _tracer is None:
        return NOTHING
    sampled = [each for each in dict.fromkeys(traceparents) if each and each[-1] in _ODD and valid(each)]
    if not sampled:
        return NOTHING
    links = [Link(_context_of(each)) for each in sampled[:MAX_LINKS]]
    counted = {**attributes, "muster.traces": len(sampled)}
    return _Current(_tracer.start_span(name, _within(links[0].context), kind, counted, links))


def within(name: str, kind: SpanKind, attributes: Attributes) -> AbstractContextManager[Span]:
    """A child of the current span; none if that one is not recorded."""
    if _tracer is None or not trace.get_current_span().is_recording():
        return NOTHING
    return _Current(_tracer.start_span(name, None, kind, attributes))


def current() -> Span:
    """The current span, or one that ignores everything if none is recorded."""
    return trace.get_current_span()


def traceparent() -> str | None:
    """The current span's traceparent, even if it is not sampled; None if there is no span."""
    if _tracer is None:
        return None
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}" if span.is_valid else None


def valid(traceparent: str | None) -> str | None:
    """The traceparent if it is valid, otherwise None: other producers may write anything."""
    return traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None


def fail(span: Span, error_type: str) -> None:
    """Note that the operation of a span failed, and how."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


class _Current(AbstractContextManager[Span]):
    """A span that is the current one until the block ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        contexts.detach(self._token)
        if isinstance(error, PermanentError):
            self._span.set_attribute("muster.refusal", error.slug)  # a refusal is not a failure
        elif kind is not None:
            fail(self._span, kind.__name__)
        self._span.end()


def _context_of(traceparent: str) -> SpanContext:
    """The span context that a valid traceparent names."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _within(parent: SpanContext) -> contexts.Context:
    """A context for a child of another process's span."""
    return trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY)
