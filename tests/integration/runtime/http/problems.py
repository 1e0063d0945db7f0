"""The problem document that answers every refused request."""

from typing import Any


def problem(reply: Any, status: int) -> dict[str, Any]:
    """The reply's problem document, after a check of the fields that all problems share."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:muster:problem:")
    assert body["title"]
    assert body["request_id"] == reply.headers["x-request-id"]
    return body
