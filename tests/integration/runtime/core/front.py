"""A process of the enrollment service with only its API, as clients and attackers reach it: over sockets."""

import asyncio
import json
import re
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from muster_enrollment.bootstrap import build
from muster_runtime.process.roles import Role
from muster_runtime.settings import Settings
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner, TokenIssuer

# How many files the process may open; connections get what is left of them.
OPEN_FILES = 400
PER_ADDRESS = 100
SLOTS = 40


@dataclass
class Front:
    """The process, and what it has logged."""

    port: int
    process: psutil.Process
    tokens: TokenIssuer
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bearer(self, agency: str, *scopes: str) -> str:
        """A header line with a token that acts for the agency."""
        token = self.tokens.token("enrollment:write", "enrollment:read", *scopes, agency=agency)
        return f"Authorization: Bearer {token}\r\n"

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the labels that are not given."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in wanted)
        )

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event."""
        lines = [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        return [line for line in lines if line["event"] == event]

    async def connect(self, source: str = "127.0.0.2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from one of this machine's addresses."""
        return await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0), family=socket.AF_INET, limit=2**24
        )

    async def ask(self, request: bytes, source: str = "127.0.0.2") -> bytes:
        """All that the server answers to these bytes until it closes the connection."""
        reader, writer = await self.connect(source)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()


def statuses(answers: bytes) -> list[int]:
    """The status of each answer on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@asynccontextmanager
async def fronting(
    run_service: ServiceRunner,
    tokens: TokenIssuer,
    log: Path,
    port: int,
    **variables: str,
) -> AsyncIterator[Front]:
    """Run the process with few request slots and few open files until the block ends; `variables` are its settings."""
    beside: RunningService = await run_service(build, Settings, roles=frozenset({Role.API}))
    settings = beside.runtime.settings
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "muster_enrollment", "serve", "--role", "api"),
            env={
                "MUSTER_ENVIRONMENT": "sandbox",
                "MUSTER_POSTGRES_API_DSN": settings.postgres_api_dsn.get_secret_value(),
                "MUSTER_POSTGRES_WORKER_DSN": settings.postgres_worker_dsn.get_secret_value(),
                "MUSTER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
                "MUSTER_TOPIC_PREFIX": settings.topic_prefix,
                "MUSTER_HTTP_PORT": str(port),
                "MUSTER_HTTP_CONCURRENCY": str(SLOTS),
                "MUSTER_HTTP_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
                # The concurrency limits are tested with few clients, which send requests as fast as they can.
                "MUSTER_HTTP_TOKEN_RATE": "1000000",
                "MUSTER_HTTP_AGENCY_RATE": "1000000",
                "MUSTER_OIDC_ISSUER": settings.oidc_issuer,
                "MUSTER_OIDC_JWKS": settings.oidc_jwks,
            }
            | variables,
            stdout=out,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES)),
        )
    front = Front(port, psutil.Process(process.pid), tokens, log)

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient(base_url=front.url) as client:
                return (await client.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await eventually(answers, timeout=60)
        yield front
    finally:
        process.terminate()
        await process.wait()
