"""Schemathesis against each service on a real server: no 5xx, and no answer that the OpenAPI document lacks.

It tries the document's examples, each boundary of each parameter, random requests, and sequences of requests, as the
program and as an agency. MUSTER_TEST_SEED repeats a run. MUSTER_FUZZ_EXAMPLES makes it longer: that many random
requests for each operation, four times as many sequences, and that many sixteenths of the boundaries, which the seed
picks.

The documents have no links. Schemathesis infers what follows a request from the names in the document: a seat's id in
an answer leads to the seat's routes.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn

from muster_local.scopes import SCOPES
from muster_runtime.http.connections import BoundedProtocol, Connections
from muster_runtime.process.roles import ALL_ROLES, Role
from tests.integration.billing.conftest import START, enrolled
from tests.integration.enrollment.program import REGISTER, acceptance, authorization, enrollment
from tests.integration.notify.conftest import contact
from tests.support.applications import BUILDERS
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

SEED = int(os.environ.get("MUSTER_TEST_SEED") or secrets.randbelow(10**9))
EXAMPLES = int(os.environ.get("MUSTER_FUZZ_EXAMPLES", "1"))

# In the last one a request follows from an answer; the first request of a sequence does not count.
PHASES = ("examples", "coverage", "fuzzing", "stateful")

AGENCY = "NASA"

# So that nothing is sent to an invented address.
ROLES = {"notify": frozenset({Role.API, Role.CONSUMER})}

CONFIGURATION = f"""
seed = {SEED}
continue-on-failure = true
suppress-health-check = ["all"]

[generation]
no-shrink = true
database = "none"

[phases.examples]
enabled = true

[phases.coverage]
enabled = true

[phases.fuzzing]
enabled = true
generation.max-examples = {EXAMPLES}

[phases.stateful]
enabled = true
generation.max-examples = {4 * EXAMPLES}

[dictionaries.agencies]
values = ["NASA"]

[dictionaries.people]
values = ["person.1@nasa.gov", "person.2@nasa.gov"]

# Of the id 1: no random text is a cursor, and with a bad one a list is not read.
[dictionaries.cursors]
values = ["MQ"]

[parameters]
"path.agency_id" = {{ dictionary = "agencies", probability = 0.8 }}
"query.after" = {{ dictionary = "cursors", probability = 0.5 }}
"query.subject" = {{ dictionary = "people", probability = 0.5 }}

# What a schema cannot say, such as that a cursor is one that was given, or that a thing is in a state.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 412, 422, 429]

# A value can be too long for a URL or a header before it is too long for its schema.
[checks.negative_data_rejection]
expected-statuses = ["4xx"]

# If-Match is the one that is required: RFC 6585, 3.
[checks.missing_required_header]
expected-statuses = [401, 403, 404, 415, 428]
"""


@asynccontextmanager
async def serving(service: RunningService) -> AsyncIterator[str]:
    """The service behind the server that it has in production; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    connections = Connections(service.runtime.service.name, 1_000, 1_000, open_files=2_000)
    config = uvicorn.Config(
        service.process.app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, connections)),
        ws="none",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def posted(service: RunningService, path: str, **request: Any) -> dict[str, Any]:
    reply = await service.client.post(path, **request)
    assert reply.is_success, reply.text
    return dict(reply.json())


async def fill_enrollment(service: RunningService) -> None:
    await posted(service, "/v1/register", content=REGISTER, headers={"content-type": "text/csv"})
    await posted(service, f"/v1/agencies/{AGENCY}/enrollments", json=enrollment())
    await posted(service, f"/v1/agencies/{AGENCY}/authorizations", json=authorization())
    await posted(service, f"/v1/agencies/{AGENCY}/data-use-acceptances", json=acceptance())


async def fill_entitlements(service: RunningService) -> None:
    await service.publish(enrolled(AGENCY, START, "enr_1"))
    await found(service, f"/v1/agencies/{AGENCY}/pool")
    for number in range(3):
        await posted(service, f"/v1/agencies/{AGENCY}/seats", json={"email": f"person.{number}@nasa.gov"})


async def fill_billing(service: RunningService) -> None:
    await service.publish(enrolled(AGENCY, START, "enr_1"))
    await found(service, f"/v1/agencies/{AGENCY}/invoices")


async def fill_notify(service: RunningService) -> None:
    await service.publish(contact(AGENCY), enrolled(AGENCY, START, "enr_1"))
    await found(service, f"/v1/agencies/{AGENCY}/deliveries")


async def found(service: RunningService, path: str) -> None:
    """Wait until there is something at a path."""

    async def there() -> bool:
        reply = await service.client.get(path)
        return reply.status_code == 200 and reply.json().get("items", [path]) != []

    await eventually(there)


FILLED: dict[str, Callable[[RunningService], Awaitable[None]]] = {
    "enrollment": fill_enrollment,
    "entitlements": fill_entitlements,
    "billing": fill_billing,
    "notify": fill_notify,
}


@dataclass(frozen=True)
class Answers:
    """How many answers of one status one operation gave in one phase."""

    phase: str
    operation: str
    status: int
    times: int


@dataclass(frozen=True)
class Run:
    """What Schemathesis found, and how far it got."""

    passed: bool
    report: str
    answers: list[Answers]

    def requests(self, phase: str) -> int:
        return sum(answers.times for answers in self.answers if answers.phase == phase)

    def operations(self, below: int = 600) -> set[str]:
        """The operations that answered with a status below this one."""
        return {answers.operation for answers in self.answers if answers.status < below}


async def tried(folder: Path, url: str, token: str) -> Run:
    """Run Schemathesis with all its checks."""
    configuration, counts = folder / "schemathesis.toml", folder / "counts.json"
    configuration.write_text(CONFIGURATION, "utf-8")
    counts.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={configuration}",
        "run",
        f"{url}/openapi.json",
        f"--url={url}",
        f"--header=Authorization: Bearer {token}",
        "--checks=all",
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "checks",
            "PYTHONPATH": str(Path(__file__).parent),
            "FUZZ_COUNTS": str(counts),
            "FUZZ_SEED": str(SEED),
            "FUZZ_SHARE": str(EXAMPLES / 16),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    answers = [Answers(*row) for row in json.loads(counts.read_text("utf-8"))] if counts.exists() else []
    return Run(process.returncode == 0, report.decode(), answers)


@pytest.mark.parametrize("name", BUILDERS)
async def test_no_request_is_answered_by_a_fault_or_by_what_is_not_documented(
    run_service: ServiceRunner, tmp_path: Path, name: str
) -> None:
    print(f"MUSTER_TEST_SEED={SEED} MUSTER_FUZZ_EXAMPLES={EXAMPLES}")
    build, settings_class = BUILDERS[name]
    service = await run_service(build, settings_class, roles=ROLES.get(name, ALL_ROLES))
    service.clock.move(START)
    await FILLED[name](service)
    scopes = [*SCOPES, *(f"{name}:{verb}" for verb in ("read", "write", "operate"))]
    documented = {
        f"{method.upper()} {path}"
        for path, operations in service.process.app.openapi()["paths"].items()
        for method in operations
    }
    sent: Counter[str] = Counter()
    async with serving(service) as url:
        for agency in ("*", AGENCY):
            run = await tried(tmp_path, url, service.token(*scopes, agency=agency))
            requests = {phase: run.requests(phase) for phase in (*PHASES, "first of a sequence")}
            print(
                f"{name} as {agency}: {requests}, of {len(documented)} operations {len(run.operations(300))} succeeded"
            )
            assert run.passed, run.report
            sent.update(requests)
            assert run.operations() == documented
            # A run that is refused everywhere would prove little.
            assert len(run.operations(300)) >= 3, run.answers
    assert all(sent[phase] for phase in PHASES), sent
