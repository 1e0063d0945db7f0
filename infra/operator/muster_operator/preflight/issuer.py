"""Checks that the token issuer publishes usable keys and has the right time."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from muster_operator.preflight.findings import Check, Finding
from muster_runtime.clock import SystemClock
from muster_runtime.http.issuer_metadata import endpoint, is_discoverable, metadata_addresses, parse_metadata
from muster_runtime.http.tokens import LEEWAY
from muster_runtime.http.usable_keys import usable_keys
from muster_runtime.settings import Settings
from muster_runtime.text import count

READ_SECONDS = 5.0

# A Date header has whole seconds, and the reply takes time to arrive.
UNREMARKABLE = timedelta(seconds=3)


async def check_issuer(service: str, settings: Settings) -> AsyncIterator[Finding]:
    """Check the issuer that these settings name."""
    check = Check(service, "issuer")
    if not settings.oidc_issuer or not settings.oidc_audience:
        yield check.failed("MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set", "name the token issuer")
        return
    dates: list[str] = []
    try:
        document = await _keys(settings, dates)
        keys = usable_keys(json.loads(document))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = f"the keys of {settings.oidc_issuer} cannot be read: {error or type(error).__name__}"
        yield check.failed(reason, "correct MUSTER_OIDC_ISSUER, MUSTER_OIDC_JWKS, SSL_CERT_FILE, or the network")
        return
    yield check.ok(f"{settings.oidc_issuer} has {count(len(list(keys)), 'key')}")
    for date in dates[-1:]:
        yield _of_clock(Check(service, "clock of the issuer"), date)


async def _keys(settings: Settings, dates: list[str]) -> bytes:
    """The JWK set, found as a service finds it. Appends the replies' Date headers to `dates`."""
    location = settings.oidc_jwks
    if location and "://" not in location:
        return Path(location).read_bytes()
    if not location and not is_discoverable(settings.oidc_issuer):
        raise ValueError("MUSTER_OIDC_JWKS must be set unless MUSTER_OIDC_ISSUER is a URL with metadata")
    async with httpx.AsyncClient(timeout=READ_SECONDS) as client:
        if not location:
            first, second = metadata_addresses(settings.oidc_issuer)
            reply = await client.get(first)
            if reply.status_code == httpx.codes.NOT_FOUND:
                reply = await client.get(second)
            reply.raise_for_status()
            location = endpoint(parse_metadata(reply.content, settings.oidc_issuer), "jwks_uri")
        reply = await client.get(location)
        reply.raise_for_status()
        dates += reply.headers.get_list("date")
        return reply.content


def _of_clock(check: Check, date: str) -> Finding:
    try:
        told: datetime = parsedate_to_datetime(date)
        off = abs(SystemClock().now() - told)
    except (ValueError, TypeError):
        return check.warning(f"its Date header is not a date: {date[:100]}", "the clock cannot be compared")
    if off <= UNREMARKABLE:
        return check.ok("agrees with this machine's")
    found = f"{off.total_seconds():.0f} s off from this machine's"
    if off > LEEWAY:
        return check.failed(f"{found}: tokens would be refused", "synchronize both clocks with NTP")
    return check.warning(found, "synchronize both clocks with NTP")
