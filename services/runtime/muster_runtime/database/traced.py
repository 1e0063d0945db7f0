"""The span of a writing transaction, and the trace that it continues."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from muster_contracts import is_agency_id
from muster_runtime import spans
from muster_runtime.context import Context
from muster_runtime.spans import Span, SpanKind


def transaction(schema: str, agencies: Sequence[str]) -> AbstractContextManager[Span]:
    """The span of a transaction, from its wait for its turn to its commit."""
    if not spans.is_recording():
        return spans.NOTHING
    attributes: dict[str, str | int] = {
        "db.system.name": "postgresql",
        "db.namespace": schema,
        "db.operation.name": "write",
        "muster.agencies": len(agencies),
    }
    if len(agencies) == 1 and is_agency_id(agencies[0]):  # it comes from the caller and is not validated yet
        attributes["muster.agency_id"] = agencies[0]
    return spans.within(f"write {schema}", SpanKind.CLIENT, attributes)


def carried_on(context: Context) -> Context:
    """The context with the current span's traceparent; unchanged if there is no span."""
    traceparent = spans.traceparent()
    return context if traceparent is None else replace(context, traceparent=traceparent)
