"""An operator who follows runbooks: runs their commands verbatim on the test's own stack."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from muster_contracts import SERVICES
from muster_enrollment.domain.rules import ISSUER, PRODUCT
from muster_local.demo.program import ProgramClient
from muster_local.postgres import program
from muster_local.scopes import SCOPES
from muster_local.stack import Stack
from muster_runtime.clock import SystemClock

RUNBOOKS = Path(__file__).parents[2] / "infra" / "runbooks"


class Operator:
    """An operator in a folder with a stack. `environment` names other servers than the stack's, if any."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = environment or {}
        programs = [Path(sys.executable).parent, program("pg_dump").parent]
        self.path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])

    @property
    def stack(self) -> Stack:
        """The running stack."""
        stack = Stack.running(self.folder / ".muster")
        assert stack is not None
        return stack

    def follow(self, runbook: str, part: str = "", **variables: str) -> str:
        """Run the commands of a runbook, or of the part under a heading; return their output."""
        text = (RUNBOOKS / runbook).read_text("utf-8")
        if part:
            (text,) = re.findall(rf"^## {part}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
        assert blocks, runbook
        return self.run("\n".join(blocks), **variables)

    def run(self, script: str, **variables: str) -> str:
        """Run a script in bash and return its output; it must succeed."""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**os.environ, **self._environment, "PATH": self.path, "COLUMNS": "400", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    async def sql(self, service: str, query: str, *arguments: Any) -> Any:
        """The first value that a query returns in a service's schema."""
        connection = await asyncpg.connect(self.stack.admin_dsn, server_settings={"search_path": service})
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()


async def register(operator: Operator, agency_id: str) -> None:
    """Import an agency into the register."""
    columns = ["id", "name", "parent", "treasury_code", "domains", "headcount", "branch"]
    row = [agency_id, agency_id, "", "", f"{agency_id.lower()}.gov", "100", "executive"]
    file = "\n".join("\t".join(cells) for cells in (columns, row)) + "\n"
    stack = operator.stack
    urls = {service: stack.service_url(service) for service in SERVICES}
    async with ProgramClient(urls, stack.token(*SCOPES)) as program_office:
        await program_office.upload("enrollment", "register", file.encode(), "text/tab-separated-values")


async def enroll(operator: Operator, agency_id: str) -> None:
    """Enroll an agency, so that billing has a term to lose."""
    await register(operator, agency_id)
    stack = operator.stack
    urls = {service: stack.service_url(service) for service in SERVICES}
    person = {"name": "Ada Administrator", "email": f"ada@{agency_id.lower()}.gov"}
    async with ProgramClient(urls, stack.token(*SCOPES)) as program_office:
        path = f"agencies/{agency_id}"
        starts_at = SystemClock().now().isoformat()
        await program_office.post(
            "enrollment", f"{path}/enrollments", {"seats": 5, "starts_at": starts_at, "contact": person}
        )
        await program_office.post("enrollment", f"{path}/authorizations", authorization(f"ATU-{agency_id}"))
        await program_office.post(
            "enrollment",
            f"{path}/data-use-acceptances",
            {"terms_version": "2025-08", "signer": person, "evidence_sha256": "0" * 64},
        )


def authorization(number: str) -> dict[str, str]:
    """An authorization to use (ATU) that stays valid."""
    return {
        "number": number,
        "issuer": ISSUER,
        "product": PRODUCT,
        "valid_from": "2025-01-01T00:00:00Z",
        "valid_until": "2099-01-01T00:00:00Z",
    }


async def assign_seats(operator: Operator, agency_id: str, numbers: Iterable[int]) -> None:
    """Assign a seat to each of these people."""
    stack = operator.stack
    async with httpx.AsyncClient(
        base_url=stack.service_url("entitlements"),
        headers={"authorization": f"Bearer {stack.token('entitlements:write')}"},
        trust_env=False,
    ) as client:
        for number in numbers:
            person = {"email": f"person.{number}@{agency_id.lower()}.gov"}
            (await client.post(f"/v1/agencies/{agency_id}/seats", json=person)).raise_for_status()
