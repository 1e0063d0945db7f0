"""The pages that say what a service can be asked: public, and made of nothing from another host."""

from functools import cache
from importlib.resources import as_file, files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html
from fastapi.responses import HTMLResponse, JSONResponse, Response

DOCUMENT_PATH = "/openapi.json"
SCRIPT_PATH = "/docs/redoc.standalone.js"

# Whatever the script would fetch from elsewhere, such as its maker's logo, the browser refuses.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src blob:",
        "connect-src 'self'",
        "style-src 'unsafe-inline'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


# The greatest integer that a generated client can hold if the document does not name a wider type.
_GREATEST_INT32 = 2**31 - 1


class DocumentedApi(FastAPI):
    """FastAPI, whose OpenAPI document marks every integer that may need 64 bits: `format: int64` (OpenAPI 3.1, 4.4).

    Without it, generated clients use 32 bits.
    """

    def openapi(self) -> dict[str, Any]:
        """The document."""
        document = super().openapi()
        _widen_integers(document)
        return document


def _widen_integers(part: Any) -> None:
    if isinstance(part, list):
        for each in part:
            _widen_integers(each)
    elif isinstance(part, dict):
        if part.get("type") == "integer" and part.get("maximum", _GREATEST_INT32 + 1) > _GREATEST_INT32:
            part.setdefault("format", "int64")
        for each in part.values():
            _widen_integers(each)


def documentation_router(app: FastAPI) -> APIRouter:
    """`/` names the pages; `/docs` shows the OpenAPI document with Redoc, which the package fastapi-offline carries."""
    router = APIRouter(include_in_schema=False)
    with as_file(files("fastapi_offline") / "static" / "redoc.standalone.js") as path:
        script = path.read_bytes()

    @router.get("/")
    async def index() -> JSONResponse:
        return JSONResponse(
            {
                "service": app.title,
                "documentation": "/docs",
                "openapi": DOCUMENT_PATH,
                "health": "/health/ready",
                "metrics": "/metrics",
            }
        )

    @cache
    def document() -> bytes:
        """Made once: clients that do not take it, and need no token, would else keep one each in memory."""
        return bytes(JSONResponse(app.openapi()).body)

    @router.get(DOCUMENT_PATH)
    async def openapi() -> Response:
        return Response(document(), media_type="application/json")

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        # Relative addresses, so that the page works behind a prefix too.
        page = get_redoc_html(
            openapi_url=DOCUMENT_PATH.removeprefix("/"),
            title=app.title,
            redoc_js_url=SCRIPT_PATH.removeprefix("/"),
            redoc_favicon_url="data:,",
            with_google_fonts=False,
        )
        page.headers["content-security-policy"] = _POLICY
        return page

    @router.get(SCRIPT_PATH)
    async def redoc() -> Response:
        return Response(script, media_type="text/javascript")

    return router
