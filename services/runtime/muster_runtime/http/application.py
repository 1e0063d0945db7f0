"""A service's HTTP side: the application, and everything that a service's api.py needs."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from muster_runtime.clock import SystemClock
from muster_runtime.database.transactions import EVERY_AGENCY, Database
from muster_runtime.http import problems
from muster_runtime.http.admission import Admission
from muster_runtime.http.approval_routes import approval_router
from muster_runtime.http.approvals import PROPOSED, needs_approval
from muster_runtime.http.audit_routes import audit_router
from muster_runtime.http.auth import IdentityDep, access_to, requires, requires_program
from muster_runtime.http.documentation import DocumentedApi, documentation_router
from muster_runtime.http.exchange import MEBIBYTE, body_limit
from muster_runtime.http.health import HealthCheck, health_router
from muster_runtime.http.identity import Identity
from muster_runtime.http.keys import KeySource
from muster_runtime.http.middleware import Gatekeeper
from muster_runtime.http.pagination import PageDep
from muster_runtime.http.rate_limits import PersonalReadLimit, RateLimits
from muster_runtime.http.read_shares import ReadShares
from muster_runtime.http.request_rules import ReasonLine, RequestBody, WrittenInstant, WrittenReason, media_type
from muster_runtime.http.roles import Roles
from muster_runtime.http.tenancy import (
    Commands,
    CommandsDep,
    IfMatchDep,
    Reader,
    ReaderDep,
    RequiredIfMatchDep,
    etag,
)
from muster_runtime.http.tokens import TokenVerifier
from muster_runtime.observability.telemetry import BREAK_GLASS
from muster_runtime.service import Runtime, Service

__all__ = [
    "EVERY_AGENCY",
    "MEBIBYTE",
    "PROPOSED",
    "Commands",
    "CommandsDep",
    "Identity",
    "IdentityDep",
    "IfMatchDep",
    "PageDep",
    "Reader",
    "ReaderDep",
    "ReasonLine",
    "RequestBody",
    "RequiredIfMatchDep",
    "RuntimeDep",
    "WrittenInstant",
    "WrittenReason",
    "access_to",
    "add_routes",
    "body_limit",
    "create_app",
    "etag",
    "media_type",
    "needs_approval",
    "openapi",
    "requires",
    "requires_program",
]


def create_app(
    runtime: Runtime,
    api_database: Database,
    health: HealthCheck,
    keys: KeySource,
    roles: Roles,
    *,
    with_api: bool = True,
) -> FastAPI:
    """The application of a running process. Without its API, it has only health and metrics.

    Add further routes (parking, the sandbox's) to the result. Raises ValueError if no issuer is set.
    """
    settings = runtime.settings
    app = _bare_application(runtime.service)
    if with_api:
        _add_api(app, runtime.service)
    app.state.database = api_database
    app.state.read_shares = ReadShares(settings.postgres_pool_size)
    app.state.personal_read_limit = PersonalReadLimit(settings.personal_reads_per_minute)
    app.state.runtime = runtime
    BREAK_GLASS.labels(runtime.service.name)  # starts at zero, so that the alert sees the first one
    admission = Admission(runtime.service.name, settings.http_concurrency, settings.http_body_bytes)
    add_routes(app, health_router(health, admission))
    add_routes(app, documentation_router(app))
    app.add_api_route("/metrics", _metrics, include_in_schema=False)
    app.add_middleware(
        Gatekeeper,
        service=runtime.service.name,
        verifier=TokenVerifier(
            keys,
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            clock=SystemClock(),
            roles=roles,
        ),
        limits=RateLimits(settings.http_token_rate, settings.http_agency_rate),
        admission=admission,
        behind_tls=settings.http_behind_tls,
    )
    return app


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add a router's routes as they are.

    FastAPI's include_router builds each of them again at the first request, with what the application adds to them,
    which is nothing here: that took a tenth of a second of CPU.
    """
    app.router.routes.extend(router.routes)


def openapi(service: Service) -> dict[str, Any]:
    """The service's OpenAPI 3.1 document."""
    app = _bare_application(service)
    _add_api(app, service)
    return app.openapi()


def _bare_application(service: Service) -> FastAPI:
    app = DocumentedApi(
        title=f"Muster {service.name}",
        version="1",
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "The service itself."}],
        openapi_url=None,  # `documentation` serves it and its pages: FastAPI's pages load third-party scripts
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, problems.answer)
    app.add_exception_handler(RequestValidationError, problems.answer)
    return app


def _add_api(app: FastAPI, service: Service) -> None:
    for router in (*service.routers, audit_router(service.name), approval_router(service.name)):
        add_routes(app, router)


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


# The running process. Its clock gives a read the current time, and its settings are the service's own.
RuntimeDep = Annotated[Runtime, Depends(_runtime)]


async def _metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
