"""Who may use which route: docs/access.md matches what the routes declare, and each route enforces it.

The roles that come with the runtime leave no scope without a holder, and give no agency a scope of the program.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from muster_local.scopes import SCOPES
from muster_runtime.http.auth import PUBLIC_PATHS, Access, access_to
from muster_runtime.http.roles import Roles, with_implied
from tests.support.applications import BUILDERS, whole_application
from tests.support.services import TokenIssuer

BREAK_GLASS = "break-glass"

PAGE = Path(__file__).parents[2] / "docs" / "access.md"

# The operators' routes belong to the runtime: they are the same in every service, each service with its own scope.
OPERATORS = (
    "/v1/audit",
    "/v1/personal-reads",
    "/v1/parked",
    "/v1/streams",
    "/v1/partitions",
    "/v1/deadlines",
    "/v1/epoch",
    "/v1/rewind",
    "/v1/proposals",
)


GUARDED = [(name, access) for name in BUILDERS for access in access_to(whole_application(name)) if access.scopes]
AGENCYS = [(name, access) for name, access in GUARDED if "{agency_id}" in access.path and not access.program_only]
PROGRAMS = [(name, access) for name, access in GUARDED if access.program_only]


ROLES = Roles.load("").roles

# Scopes whose routes are all for the program only.
PROGRAMS_SCOPES = {scope for _, access in GUARDED for scope in access.scopes} - {
    scope for _, access in GUARDED if not access.program_only for scope in access.scopes
}


def each(routes: list[tuple[str, Access]]) -> pytest.MarkDecorator:
    """A test for each of the routes."""
    ids = [f"{name} {access.method} {access.path}" for name, access in routes]
    return pytest.mark.parametrize(("name", "access"), routes, ids=ids)


def table() -> list[str]:
    """The rows of the page: the routes of each service, then those that every service has."""
    shared, own = [], []
    for name in BUILDERS:
        for access in access_to(whole_application(name)):
            everywhere = access.path in PUBLIC_PATHS or access.path.startswith((*OPERATORS, "/sandbox"))
            scopes = tuple(scope.replace(f"{name}:", "<service>:") for scope in access.scopes)
            row = _row(Access(access.path, access.method, scopes if everywhere else access.scopes, access.program_only))
            if not everywhere:
                own.append(row)
            elif row not in shared:
                shared.append(row)
    return [*own, *shared]


def _row(access: Access) -> str:
    if not access.scopes:
        who = "anyone, without a token"
    elif access.program_only:
        who = "program"
    else:
        who = "agency, program"
    scopes = ", ".join(f"`{scope}`" for scope in access.scopes) or "-"
    return f"| `{access.method} {access.path}` | {scopes} | {who} |"


@cache
def served(name: str, jwks: Path) -> FastAPI:
    """One application of a service for all tests, so that it reads its keys once."""
    return whole_application(name, jwks)


@asynccontextmanager
async def client_of(app: FastAPI, token: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test", headers=headers) as client:
        yield client


async def asked(tokens: TokenIssuer, name: str, access: Access, *scopes: str, agency: str) -> httpx.Response:
    """The answer to a request for NASA's route, without anything else that the route needs."""
    path = re.sub(r"\{\w+\}", "x", access.path.replace("{agency_id}", "NASA"))
    async with client_of(served(name, tokens.jwks), tokens.token(*scopes, agency=agency)) as client:
        return await client.request(access.method, path)


def test_the_page_says_what_the_routes_declare() -> None:
    written = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| `[A-Z]+ /", line)]
    assert written == table(), "docs/access.md must have these rows:\n" + "\n".join(table())


def test_the_scopes_that_a_token_may_have_are_those_that_routes_require() -> None:
    assert set(SCOPES) == {scope for _, access in GUARDED for scope in access.scopes}


def test_the_page_says_what_each_role_may() -> None:
    written = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| `[a-z]+:[a-z]+` \|", line)]
    names = [name for name in ROLES if name != BREAK_GLASS]
    rows = [f"| `{scope}` | {' | '.join(_mark(name, scope) for name in names)} |" for scope in SCOPES]
    assert written == rows, "docs/access.md must have these rows:\n" + "\n".join(rows)
    assert f"| scope | {' | '.join(names)} |" in PAGE.read_text("utf-8")


def _mark(role: str, scope: str) -> str:
    return "yes" if scope in with_implied(ROLES[role].scopes) else "-"


def test_every_scope_is_granted_by_a_role_and_no_other_scope_is() -> None:
    """Break-glass is excluded: it is not a role for daily work."""
    granted = {scope for name, role in ROLES.items() if name != BREAK_GLASS for scope in role.scopes}
    assert granted <= set(SCOPES) <= with_implied(granted)
    assert set(ROLES[BREAK_GLASS].scopes) < set(SCOPES)


def test_no_role_that_an_agency_may_hold_has_a_scope_of_the_program() -> None:
    assert {"enrollment:authorize", "billing:receive"} < PROGRAMS_SCOPES
    for name, role in ROLES.items():
        if role.holder != "program":
            assert not with_implied(role.scopes) & PROGRAMS_SCOPES, name


@each(GUARDED)
async def test_no_route_opens_without_its_scope(tokens: TokenIssuer, name: str, access: Access) -> None:
    (needed,) = access.scopes
    others = (scope for scope in SCOPES if needed not in with_implied([scope]))
    reply = await asked(tokens, name, access, *others, agency="*")
    assert (reply.status_code, reply.json()["scope"]) == (403, needed)


@each(PROGRAMS)
async def test_a_program_officers_route_is_closed_to_an_agency(tokens: TokenIssuer, name: str, access: Access) -> None:
    reply = await asked(tokens, name, access, *SCOPES, agency="NASA")
    assert (reply.status_code, reply.json()["type"]) == (403, "urn:muster:problem:program-only")
    assert "NASA" in reply.json()["detail"]


@each(AGENCYS)
async def test_an_agencys_route_is_closed_to_another_agency(tokens: TokenIssuer, name: str, access: Access) -> None:
    """This is checked before anything else: whatever is sent, the agency seems not to exist."""
    reply = await asked(tokens, name, access, *SCOPES, agency="DOE")
    assert (reply.status_code, reply.json()["type"]) == (404, "urn:muster:problem:not-found")
