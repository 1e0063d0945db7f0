"""Consuming over HTTP, compared with a bare `update ... returning` through the same server with the same token.

`python -m tests.bench.consumption serve` is that server: the service, with a route for the update.
"""

import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
from fastapi import APIRouter, Request

from muster_contracts import AgencyId
from muster_entitlements import bootstrap
from muster_entitlements.api.parameters import PREFIX, WRITE
from muster_entitlements.api.usage import ConsumptionRequest
from muster_entitlements.schema import SCHEMA
from muster_runtime.cli import run
from muster_runtime.http.issuer import Issuer
from muster_runtime.identifiers import EVERY_AGENCY
from muster_runtime.service import Service
from tests.bench.load import Load, put_on
from tests.bench.processes import api_process, cpu_seconds, peak_mebibytes
from tests.bench.report import Measurement, say
from tests.bench.setting import Setting

ISSUER = "https://issuer.bench"
HOST = "127.0.0.1"

# Enough to keep one process busy: each agency's requests wait for one another.
CONNECTIONS = 16

# How many times the two are measured, in turn.
ROUNDS = 4

router = APIRouter()


@router.post(f"{PREFIX}/bare-update", dependencies=[WRITE])
async def update(agency_id: AgencyId, body: ConsumptionRequest, request: Request) -> int:
    """Counts the use by one statement, and nothing else."""
    async with request.app.state.database.connection() as connection:
        used: int = await connection.fetchval(
            "update effect set used = used + $4 "
            "where agency_id = $1 and subject_ref = $2 and feature = $3 returning used",
            agency_id,
            body.subject,
            body.feature,
            body.amount,
        )
    return used


async def measure(own: Setting, subjects: Sequence[tuple[str, str]], feature: str, seconds: float) -> Measurement:
    """Consume uses of these people, by agency and reference, in turn with the limit, for this many seconds in total."""
    bodies = [json.dumps({"subject": subject_ref, "feature": feature}) for _, subject_ref in subjects]
    rates: dict[str, list[float]] = {"bare-update": [], "usage/consume": []}
    cpu = dict.fromkeys(rates, 0.0)
    async with _served(own) as (server, port, token):
        for route in [*rates] * ROUNDS:
            paths = [f"/v1/agencies/{agency_id}/{route}" for agency_id, _ in subjects]
            before = cpu_seconds(server)
            outcome = await put_on(Load(HOST, port, token, paths, CONNECTIONS, seconds / ROUNDS, bodies=bodies))
            rates[route].append(outcome.rate)
            cpu[route] += cpu_seconds(server) - before
            say(f"usage: {outcome.rate:,.0f} answers/s of {route}")
        peak = peak_mebibytes(server.pid)
    limit, ours = (sum(each) / ROUNDS for each in rates.values())
    return Measurement("consume", ours, limit, "uses/s", "0.5 of it", cpu["usage/consume"], cpu["bare-update"], peak)


@asynccontextmanager
async def _served(own: Setting) -> AsyncIterator[tuple[psutil.Process, int, str]]:
    """The server, its port, and a token that it accepts."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder, socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
        issuer = Issuer.load(Path(folder) / "key.pem", issuer=ISSUER)
        jwks = Path(folder) / "jwks.json"
        jwks.write_text(json.dumps(issuer.jwks()), "utf-8")
        free.close()
        settings = {
            "ENVIRONMENT": "sandbox",
            "POSTGRES_API_DSN": own.access.api_dsn,
            "POSTGRES_WORKER_DSN": own.access.worker_dsn,
            "KAFKA_BOOTSTRAP": own.kafka.bootstrap,
            "TOPIC_PREFIX": own.topic_prefix,
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(port),
            "HTTP_TOKEN_RATE": "1000000",
            "HTTP_AGENCY_RATE": "1000000",
            "OIDC_ISSUER": ISSUER,
            "OIDC_JWKS": str(jwks),
        }
        environment = os.environ | {f"MUSTER_{name}": value for name, value in settings.items()}
        async with api_process(__name__, environment) as server:
            yield server, port, issuer.token(["entitlements:write"], agency=EVERY_AGENCY, subject="bench")


def build() -> Service:
    """The service, with the route for the update."""
    service = bootstrap.build()
    return replace(service, routers=[*service.routers, router])


if __name__ == "__main__":
    run("tests.bench.consumption", SCHEMA)
