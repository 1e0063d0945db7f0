"""A client of a running enrollment service."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from muster_contracts import Envelope, read_headers
from muster_contracts.enrollment import AgencyEnrolled
from tests.support.eventually import eventually
from tests.support.services import RunningService

START = datetime(2025, 8, 6, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)

REGISTER = """\
id,name,parent,treasury_code,domains,headcount,branch
HHS,Department of Health and Human Services,,075,hhs.gov,92269,executive
NIH,National Institutes of Health,HHS,075,nih.gov,21299,executive
NASA,National Aeronautics and Space Administration,,080,nasa.gov,17973,executive
DOE,Department of Energy,,089,energy.gov,17472,executive
NSF,National Science Foundation,,049,nsf.gov,1601,executive
SBA,Small Business Administration,,073,sba.gov,8164,executive
GAO,Government Accountability Office,,005,gao.gov,3000,legislative
"""


def enrollment(**changes: Any) -> dict[str, Any]:
    """The body of a submission."""
    body = {
        "seats": 100,
        "starts_at": START.isoformat(),
        "contact": {"name": "Robin Invented", "email": "robin.invented@agency.gov"},
    }
    return body | changes


def authorization(start: datetime = START - DAY, end: datetime = START + 30 * DAY, **changes: Any) -> dict[str, Any]:
    """The body of an authorization."""
    body = {
        "number": f"GSA-{start:%y%m%d%H%M%S%f}-{end:%y%m%d%H%M%S%f}",
        "issuer": "GSA",
        "product": "frontier-assistant",
        "valid_from": start.isoformat(),
        "valid_until": end.isoformat(),
    }
    return body | changes


def acceptance(**changes: Any) -> dict[str, Any]:
    """The body of an acceptance of the data-use terms."""
    body = {
        "terms_version": "2025-08",
        "signer": {"name": "Sasha Invented", "email": "sasha.invented@agency.gov"},
        "evidence_sha256": "0f" * 32,
    }
    return body | changes


@dataclass(frozen=True)
class Program:
    """The service, and shortcuts for its requests."""

    service: RunningService

    async def import_register(
        self, content: str | bytes, media_type: str = "text/csv", **headers: str
    ) -> httpx.Response:
        """Import a register file."""
        return await self.service.client.post(
            "/v1/register", content=content, headers={"Content-Type": media_type, **headers}
        )

    async def post(self, agency: str, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """Post to a path below an agency."""
        return await self.service.client.post(f"/v1/agencies/{agency}/{path}", json=body, headers=headers)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Get a path below /v1."""
        return await self.service.client.get(f"/v1/{path}", headers=headers)

    async def state(self, agency: str) -> str:
        """The state of an agency's enrollment."""
        return str((await self.get(f"agencies/{agency}/enrollment")).json()["state"])

    async def withdraw(self, agency: str, reason: str = "reorganized", **headers: str) -> httpx.Response:
        """Withdraw an agency, with the current ETag of its enrollment unless `headers` has another."""
        shown = await self.get(f"agencies/{agency}/enrollment")
        return await self.post(
            agency, "withdrawal", {"reason": reason}, **{"If-Match": shown.headers.get("etag", '"0"'), **headers}
        )

    async def activate(self, agency: str, *authorizations: dict[str, Any]) -> None:
        """Submit an enrollment, record an authorization, and accept the terms."""
        await self.post(agency, "enrollments", enrollment())
        for body in authorizations or [authorization()]:
            await self.post(agency, "authorizations", body)
        await self.post(agency, "data-use-acceptances", acceptance())
        assert await self.state(agency) == "active"

    async def move(self, to: datetime) -> None:
        """Move the clock, and wait until every due deadline is handled."""
        self.service.clock.move(to)
        await eventually(self._nothing_due)

    async def facts(self, agency: str) -> list[tuple[str, datetime]]:
        """What was published about an agency, in its stream's order: each event's short name and time."""
        return [(envelope.type.split(".")[2], envelope.time) for envelope in await self.envelopes(agency)]

    async def envelopes(self, agency: str) -> list[Envelope]:
        """The envelopes of the agency's stream, once the relay has sent all of them."""
        await eventually(self._outbox_is_empty)
        records = [
            record
            for record in await self.service.reader.records()
            if record.topic.endswith(AgencyEnrolled.topic) and record.key == agency.encode()
        ]
        envelopes = [read_headers(record.headers) for record in records]
        assert [envelope.sequence for envelope in envelopes] == list(range(1, len(envelopes) + 1))
        return envelopes

    async def _nothing_due(self) -> bool:
        due = "select count(*) from deadline where due_at <= $1"
        return not await self.service.admin.fetchval(due, self.service.clock.now())

    async def _outbox_is_empty(self) -> bool:
        return not await self.service.admin.fetchval("select count(*) from outbox")


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem in a response that must have a status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    return body
