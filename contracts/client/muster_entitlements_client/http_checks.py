"""Checks over HTTP, for when the copy cannot answer."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from muster_entitlements_client.answers import Answer, Verdict


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirects: the library would send the token along to the new address."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        """Return None, so that a redirect is an error."""


_OPENER = build_opener(_NoRedirects)


class HttpChecks:
    """Asks the entitlements service at `base_url`. `token` returns a bearer token with the scope entitlements:read."""

    def __init__(self, base_url: str, token: Callable[[], str], timeout_seconds: float = 5.0) -> None:
        if not base_url.startswith(("https://", "http://")):
            raise ValueError(f"base_url is {base_url!r}, not an http or https address")
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds

    async def __call__(self, agency_id: str, subject_ref: str, feature: str | None) -> Answer:
        """The service's answer. Raises OSError, which includes HTTP errors."""
        return await asyncio.to_thread(self._ask, agency_id, subject_ref, feature)

    def _ask(self, agency_id: str, subject_ref: str, feature: str | None) -> Answer:
        query = urlencode({"subject": subject_ref} | ({} if feature is None else {"feature": feature}))
        request = Request(  # noqa: S310 - only http and https
            f"{self._base_url}/v1/agencies/{quote(agency_id, safe='')}/checks?{query}",
            headers={"Authorization": f"Bearer {self._token()}"},
        )
        with _OPENER.open(request, timeout=self._timeout_seconds) as reply:
            told = json.load(reply)
        return Answer(
            Verdict(told["verdict"]),
            told["reason"],
            _instant(told["valid_until"]),
            told["revision"],
            told.get("monthly_quota"),
            told.get("limit"),
            told.get("used"),
            _instant(told.get("resets_at")),
        )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
