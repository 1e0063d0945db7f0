"""Files of seats, and their import."""

import asyncio
import csv
import io
from collections.abc import Mapping

import httpx

from muster_local.demo.cast import Agency
from muster_local.scopes import SCOPES
from tests.bench.stage import Stage

# The largest file waits for the files before it.
_PATIENCE_SECONDS = 600

_LOOK_SECONDS = 0.1


def seat_file(agency: Agency, people: range | None = None) -> bytes:
    """A file with an agency's people by number, by default all of them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["email", "name"])
    writer.writerows((person.email, person.name) for person in map(agency.person, people or range(agency.seats)))
    return text.getvalue().encode()


async def import_files(own: Stage, files: Mapping[str, bytes]) -> None:
    """Send the files, largest first, and wait until they are processed."""
    url = own.stack.service_url("entitlements")
    headers = {"authorization": f"Bearer {own.stack.token(*SCOPES)}", "content-type": "text/csv"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_SECONDS, trust_env=False) as http:
        for agency_id, file in sorted(files.items(), key=lambda item: -len(item[1])):
            reply = await http.post(f"/v1/agencies/{agency_id}/seat-imports", content=file)
            reply.raise_for_status()
    while await own.admin.fetchval("select exists (select from entitlements.operation where state = 'running')"):
        await asyncio.sleep(_LOOK_SECONDS)
