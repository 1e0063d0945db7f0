"""Live traffic: agencies enroll, pay, and assign and revoke seats, all through the services' own routes."""

import asyncio
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from muster_local.demo.cast import Agency, register
from muster_local.demo.program import ProgramClient, Unexpected

CAP = 100_000

_PAUSE_SECONDS = 0.2
_LOOK_SECONDS = 0.3
_POOL_SECONDS = 300.0


class Life:
    """One agency's life, until it is asked to pause. Each person gets a seat once; a file has up to `file_rows`."""

    def __init__(self, program: ProgramClient, agency: Agency, dice: random.Random, file_rows: int = 200) -> None:
        self._program = program
        self._agency = agency
        self._dice = dice
        self._file_rows = file_rows
        self._people = 0
        self._authorizations = 0

    async def enroll(self) -> None:
        """Take the three steps, in the agency's own order, wait for the pool of seats, and pay the invoice."""
        now = datetime.now(UTC)
        contact = {"name": self._agency.contact.name, "email": self._agency.contact.email}
        evidence = hashlib.sha256(self._agency.name.encode()).hexdigest()
        steps: dict[str, tuple[str, dict[str, Any]]] = {
            "enrollment": ("enrollments", {"seats": CAP, "starts_at": _text(now), "contact": contact}),
            "authorization": ("authorizations", self._next_authorization()),
            "acceptance": (
                "data-use-acceptances",
                {"terms_version": "2025-08", "signer": contact, "evidence_sha256": evidence},
            ),
        }
        for step in self._agency.steps:
            path, body = steps[step]
            await self._post("enrollment", path, body)
        await self._until_found("entitlements", "pool")
        invoices = await self._until_found("billing", "invoices")
        for invoice in invoices["items"]:
            path = f"invoices/{invoice['invoice_id']}/payments"
            await self._post("billing", path, {"amount": invoice["amount"], "reference": f"TREAS-{self._agency.id}"})

    async def go_on(self, over: asyncio.Event) -> None:
        """Assign seats and revoke some; now and then import a file of them, or record an authorization."""
        while not over.is_set():
            chance = self._dice.random()
            if chance < 0.1:
                await self._import_file()
            elif chance < 0.2:
                await self._post("enrollment", "authorizations", self._next_authorization())
            else:
                await self._one_seat()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _one_seat(self) -> None:
        seat = await self._post("entitlements", "seats", {"email": self._next_email()})
        fate = self._dice.random()
        if fate < 0.7:
            await self._post("entitlements", f"seats/{seat['seat_id']}/activation", expect=200)
        if fate < 0.3:
            await self._post("entitlements", f"seats/{seat['seat_id']}/revocation", {"reason": "left"}, expect=200)

    async def _import_file(self) -> None:
        rows = [self._next_email() for _ in range(self._dice.randint(1, self._file_rows))]
        path = f"agencies/{self._agency.id}/seat-imports"
        file = "\n".join(["email", *rows]).encode()
        operation = await self._program.upload("entitlements", path, file, "text/csv", expect=202)
        while operation["state"] == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            path = f"agencies/{self._agency.id}/operations/{operation['operation_id']}"
            operation = await self._program.get("entitlements", path)
        if operation["assigned"] != len(rows):
            raise Unexpected(f"{self._agency.id}: {operation['assigned']} of {len(rows)} rows of a file were assigned")

    def _next_authorization(self) -> dict[str, Any]:
        self._authorizations += 1
        now = datetime.now(UTC)
        return {
            "number": f"GSA-ATU-{self._agency.id}-{self._authorizations}",
            "issuer": "GSA",
            "product": "frontier-assistant",
            "valid_from": _text(now - timedelta(days=1)),
            "valid_until": _text(now + timedelta(days=700)),
        }

    def _next_email(self) -> str:
        self._people += 1
        return f"person.{self._people}@{self._agency.domain}"

    async def _post(self, service: str, path: str, body: dict[str, Any] | None = None, expect: int = 201) -> Any:
        return await self._program.post(service, f"agencies/{self._agency.id}/{path}", body, expect=expect)

    async def _until_found(self, service: str, path: str) -> Any:
        """Ask until another service has heard of the agency."""
        async with asyncio.timeout(_POOL_SECONDS):
            while True:
                try:
                    found = await self._program.get(service, f"agencies/{self._agency.id}/{path}")
                except Unexpected as error:
                    if " answered 404" not in str(error):
                        raise
                else:
                    if found.get("items") != []:
                        return found
                await asyncio.sleep(_LOOK_SECONDS)


def register_without_headcounts() -> bytes:
    """The register without headcounts, so that none limits the seats of a long run."""
    header, *rows = (line.split("\t") for line in register().decode().splitlines())
    place = header.index("headcount")
    return "\n".join(
        "\t".join(cells) for cells in (header, *([*r[:place], "", *r[place + 1 :]] for r in rows))
    ).encode()


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
