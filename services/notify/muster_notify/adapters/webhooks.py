"""Sends webhooks in the Standard Webhooks format, only to checked addresses."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from urllib.parse import urlsplit

import httpcore
import httpx
from standardwebhooks.webhooks import Webhook

from muster_notify.adapters.addresses import AddressPolicy, AddressRefused
from muster_notify.adapters.bounded import BoundedNetwork
from muster_notify.adapters.vault import Vault
from muster_notify.domain.deliveries import Delivery, Lane, Outcome, Verdict
from muster_notify.domain.endpoints import Endpoint, WebhookState
from muster_notify.domain.urls import Address
from muster_notify.repository import endpoints
from muster_runtime import spans
from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import Database


class WebhookSender:
    """Posts a delivery's body to its endpoint."""

    def __init__(self, vault: Vault, policy: AddressPolicy, timeout_seconds: float) -> None:
        self._vault = vault
        self._policy = policy
        self._timeout_seconds = timeout_seconds
        self._lookups: dict[Lane, asyncio.Task[Sequence[Address]]] = {}
        # Receivers compare the signing time with their own clocks, so it is never the sandbox's time.
        self._clock = SystemClock()
        # No connection is reused: each attempt resolves and checks the address. httpcore follows no redirects, takes no
        # proxy from the environment (which would resolve the name itself), and keeps no cookies: the receivers of many
        # agencies may share an address.
        self._connections = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=BoundedNetwork(),
        )

    async def send(self, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        """Attempt a delivery once. It is signed with the system time, whatever `now` is; secrets expire by `now`."""
        async with database.connection() as connection:
            endpoint = await endpoints.find_endpoint(connection, delivery.recipient)
        secrets = endpoint.signing_secrets(now)
        if endpoint.state is not WebhookState.ENABLED or not secrets:
            return Outcome(Verdict.FAILED, f"the endpoint is {endpoint.state}")
        return replace(await self._attempt(endpoint, secrets, delivery), enabled_at=endpoint.enabled_at)

    async def settle(self, lane: Lane) -> None:
        """Wait for a name lookup that outlasted its attempt, so that a slot has at most one lookup."""
        if lookup := self._lookups.pop(lane, None):
            await asyncio.wait([lookup])
            if not lookup.cancelled():
                lookup.exception()  # mark it as retrieved: the attempt is over

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def _attempt(self, endpoint: Endpoint, secrets: Sequence[bytes], delivery: Delivery) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status = await self._post(endpoint.url, self._headers(secrets, delivery), delivery)
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"no answer within {self._timeout_seconds:g} s")
        except AddressRefused as refused:
            return Outcome(Verdict.RETRY, str(refused))
        except httpx.InvalidURL:
            return Outcome(Verdict.RETRY, "the URL is not valid")
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            return Outcome(Verdict.RETRY, f"no answer: {type(error).__name__}")
        spans.current().set_attribute("http.response.status_code", status)
        return _judge(status)

    def _headers(self, secrets: Sequence[bytes], delivery: Delivery) -> dict[str, str]:
        signed_at = self._clock.now()
        signatures = (
            Webhook(self._vault.open(secret)).sign(delivery.id, signed_at, delivery.payload.decode())
            for secret in secrets
        )
        traceparent = spans.traceparent() or spans.valid(delivery.traceparent)
        return {
            "accept": "*/*",
            "content-type": "application/json",
            "user-agent": "muster-notify",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(signed_at.timestamp())),
            "webhook-signature": " ".join(signatures),
            **({"traceparent": traceparent} if traceparent else {}),
        }

    async def _post(self, url: str, headers: dict[str, str], delivery: Delivery) -> int:
        """Post the delivery; return the status of the response, without reading its body.

        Uses the first address that accepts a connection. Each but the last has a share of the attempt's time for it.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = httpx.URL(url)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timeout_seconds
        lookup = self._lookups[delivery.lane] = asyncio.create_task(self._policy.addresses(host))
        addresses = await asyncio.shield(lookup)
        for tried, address in enumerate(addresses):
            left = len(addresses) - tried
            last, share = left == 1, (ends_at - loop.time()) / left
            try:
                async with self._connections.stream(
                    "POST",
                    httpcore.URL(scheme=target.raw_scheme, host=str(address), port=target.port, target=target.raw_path),
                    content=delivery.payload,
                    # The host's name, for the receiver and for checking its certificate.
                    headers=[*headers.items(), ("host", target.netloc.decode())],
                    extensions={"sni_hostname": host, "timeout": {"connect": None if last else share}},
                ) as response:
                    return response.status
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last:
                    raise
        raise OSError("the host has no address")


def _judge(status: int) -> Outcome:
    detail = f"answered {status}"
    if 200 <= status < 300:
        return Outcome(Verdict.DELIVERED, detail)
    if status == httpx.codes.GONE:
        return Outcome(Verdict.GONE, detail)
    return Outcome(Verdict.RETRY, detail)


@cache
def _tls() -> ssl.SSLContext:
    """The authorities that receivers' certificates are checked against: the system's, or those in SSL_CERT_FILE.

    Reading them takes tens of milliseconds.
    """
    return ssl.create_default_context()
