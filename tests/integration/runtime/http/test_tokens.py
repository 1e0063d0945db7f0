"""Who may call: a token is checked before anything else, and every route declares its scope."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from muster_runtime.http.application import add_routes, requires, requires_program
from muster_runtime.http.auth import PUBLIC_PATHS, Access, access_to
from muster_runtime.http.issuer import Issuer
from tests.integration.runtime.http.conftest import Sample
from tests.integration.runtime.http.problems import problem
from tests.support.services import ISSUER
from tests.support.tokens import encoded

NOTES = "/v1/agencies/NASA/notes"

JSON = {"Content-Type": "application/json"}


def tokens_that_are_refused(issuer: Issuer) -> dict[str, str]:
    return {
        "expired": issuer.token(["sample:read"], agency="*", lifetime=timedelta(minutes=-5)),
        "unsigned": issuer.token(["sample:read"], agency="*").rpartition(".")[0] + ".",
        "garbage": "garbage",
        "none": f"{encoded({'alg': 'none'})}.{encoded({'agency': '*', 'iss': ISSUER})}.",
        "unknown": issuer.token(["sample:read"], agency="*").replace("eyJ", encoded({"alg": "Ed25519", "kid": "?"}), 1),
        "nested": issuer.token(["sample:read"], agency="*") + ".AA.AA",
        "id": issuer.token(["sample:read"], agency="*", nonce="n-0S6_WzA2Mj"),
        "future": issuer.token(["sample:read"], agency="*", nbf=4102444800),
        "agencies": issuer.token(["sample:read"], agency=[f"A{number}" for number in range(51)]),
    }


@pytest.mark.parametrize(
    "kind", ["expired", "unsigned", "garbage", "none", "unknown", "nested", "id", "future", "agencies"]
)
async def test_a_bad_token_is_refused_before_anything_else_is_checked(sample: Sample, kind: str) -> None:
    token = tokens_that_are_refused(sample.tokens.issuer)[kind]
    for path in (NOTES, "/v1/nothing", "/v1/audit"):
        reply = await sample.client.post(path, content=b"{", headers=JSON | {"Authorization": f"Bearer {token}"})
        problem(reply, 401)
        assert reply.headers["www-authenticate"] == 'Bearer realm="muster", error="invalid_token"'


async def test_a_request_without_a_token_is_asked_for_one(sample: Sample) -> None:
    del sample.client.headers["authorization"]
    reply = await sample.client.get(NOTES)
    problem(reply, 401)
    assert reply.headers["www-authenticate"] == 'Bearer realm="muster"'


async def test_another_audience_is_refused(sample: Sample, tmp_path: Any) -> None:
    stranger = Issuer.load(tmp_path / "key.pem", issuer=ISSUER, audience="another")
    token = stranger.token(["sample:read"], agency="*")
    reply = await sample.client.get(NOTES, headers={"Authorization": f"Bearer {token}"})
    problem(reply, 401)


@pytest.mark.parametrize("agency", [None, "", "nasa", "NASA,DOE", "**"])
async def test_a_token_that_does_not_say_whom_it_acts_for_is_refused(sample: Sample, agency: str | None) -> None:
    """A missing claim never makes the caller a program officer."""
    reply = await sample.client.get(NOTES, headers=sample.bearer("sample:read", agency=agency))
    detail = problem(reply, 401)["detail"]
    assert "`agency`" in detail
    assert '"*"' in detail


async def test_a_missing_scope_is_named(sample: Sample) -> None:
    reply = await sample.client.post(NOTES, json={"text": "a"}, headers=sample.bearer("sample:read"))
    assert problem(reply, 403)["scope"] == "sample:write"
    assert 'scope="sample:write"' in reply.headers["www-authenticate"]


async def test_tokens_expire_by_real_time_whatever_the_sandboxs_clock_says(sample: Sample) -> None:
    sample.clock.move(sample.clock.now() + timedelta(days=365))
    assert (await sample.client.get(NOTES)).status_code == 200


async def test_every_route_declares_its_scope(sample: Sample) -> None:
    assert all(access.scopes for access in access_to(sample.app) if access.path not in PUBLIC_PATHS)


@pytest.mark.parametrize("shown", [True, False])
def test_a_route_without_a_scope_is_found(shown: bool) -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    guarded = APIRouter(prefix="/v1/guarded", dependencies=[requires("sample:read")])

    @guarded.get("")
    async def declared_by_the_router() -> None: ...

    @guarded.post("", dependencies=[requires_program("sample:operate")])
    async def declared_twice() -> None: ...

    add_routes(app, guarded)
    assert access_to(app) == [
        Access("/v1/guarded", "GET", ("sample:read",), False),
        Access("/v1/guarded", "POST", ("sample:read", "sample:operate"), True),
    ]

    @app.get("/v1/open", include_in_schema=shown)
    async def undeclared() -> None: ...

    with pytest.raises(ValueError, match="/v1/open"):
        access_to(app)
