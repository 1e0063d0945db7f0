"""The span of a request. Requests for health or metrics have none."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from starlette.requests import Request

from muster_runtime import spans
from muster_runtime.http.auth import PUBLIC_PATHS
from muster_runtime.observability import tracing


def request_span(request: Request, ids: Mapping[str, str]) -> AbstractContextManager[spans.Span]:
    """A span that lasts until the response is sent, in the trace that the caller names."""
    if not spans.is_recording() or request.scope["path"] in PUBLIC_PATHS:
        return spans.NOTHING
    return tracing.request(request.headers.get("traceparent"), ids)
