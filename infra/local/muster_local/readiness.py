"""Asks a process whether it is ready, in its own protocol: a query, a metadata request, a greeting, a health check."""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from muster_local import kafka, postgres
from muster_local.home import PROVIDER
from muster_local.servers import kafka_at
from muster_runtime.messaging.connection import KafkaConnection

# Longer than a service's own timeouts for Postgres and Kafka, so that its reasons arrive.
_SECONDS = 10


@dataclass(frozen=True)
class Readiness:
    """The answer: `reasons` say why the process is not ready, and `warnings` report anything else.

    A service also reports its outbox, its lag in records, and its parked streams.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    outbox_rows: int | None = None
    outbox_oldest_seconds: float | None = None
    lag: int | None = None
    parked: int | None = None


async def ask(process: str, address: str, connection: KafkaConnection | None = None) -> Readiness:
    """Ask the named process at its address; a secured Kafka through `connection`."""
    if not await _listens(address):
        return Readiness(False, ("not listening",))
    if process == "postgres":
        try:
            return _answer(await postgres.answers(address))
        except ssl.SSLCertVerificationError as error:
            return Readiness(False, (f"its certificate is not accepted: {error.verify_message}",))
    if process == "kafka":
        return _answer(await kafka.answers(connection or kafka_at(address)))
    if process == "mail":
        return _answer(await _greets(address))
    if process == PROVIDER:
        return _answer(await _describes_itself(address))
    return await _health(address)


def _answer(ready: bool) -> Readiness:
    return Readiness(ready, () if ready else ("not answering",))


async def _listens(address: str) -> bool:
    """Whether anything accepts connections there.

    Checked first, because creating a client is costly if nothing listens.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _greets(address: str) -> bool:
    """Whether an SMTP server sends its greeting."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            greeting = await reader.readline()
            writer.close()
            return greeting.startswith(b"220")
    except (OSError, TimeoutError):
        return False


async def _describes_itself(issuer: str) -> bool:
    """Whether an identity provider serves its metadata."""
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            return (await client.get(f"{issuer}/.well-known/openid-configuration")).is_success
    except httpx.TransportError:
        return False


async def _health(address: str) -> Readiness:
    """A service's reply from /health/ready."""
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            health = (await client.get(f"{address}/health/ready")).json()
        return Readiness(
            ready=health["ready"],
            reasons=tuple(health["reasons"]),
            warnings=tuple(health["warnings"]),
            outbox_rows=health["outbox"]["rows"],
            outbox_oldest_seconds=health["outbox"]["oldest_seconds"],
            lag=health["lag"],
            parked=health["parked"],
        )
    except httpx.TransportError:
        return _answer(False)
    except (ValueError, KeyError):
        return Readiness(False, ("the health check is unreadable",))
