"""An operator's requests to a service that does not answer."""

import socket

import pytest

from muster_operator import service
from muster_operator.failures import Unreachable
from muster_operator.session.tokens import Credential

HOST = "127.0.0.1"


async def test_a_service_that_accepts_no_connection_is_soon_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Like behind a firewall that drops packets: the queue of connections is full, and nothing accepts one."""
    monkeypatch.setattr(service, "CONNECT_SECONDS", 0.2)
    with socket.create_server((HOST, 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        url = f"http://{HOST}:{full.getsockname()[1]}"
        async with service.connect("billing", url, Credential("the test", lambda: "token")) as billing:
            with pytest.raises(Unreachable, match="billing does not answer"):
                await billing.get("/v1/streams")
