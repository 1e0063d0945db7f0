"""The origin of what a test changes by itself, without a request or an event."""

from muster_runtime.context import Context

CONTEXT = Context(actor="test", correlation_id="cor_1")
