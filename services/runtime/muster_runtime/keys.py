"""The issuer's public keys: from a URL or a file, kept for a while, asked for again when an unknown one turns up."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from muster_runtime.clock import Clock
from muster_runtime.errors import RetryableError

log = structlog.get_logger(__name__)

MAX_AGE = timedelta(minutes=10)

# An attacker may name a new key in every request; the issuer is asked for unknown keys no oftener than this.
UNKNOWN_KEY_INTERVAL = timedelta(seconds=30)

# After a failure with no keys at hand, requests are refused at once for this long.
FAILURE_INTERVAL = timedelta(seconds=2)

_NEVER = datetime.min.replace(tzinfo=UTC)


class KeySource:
    """The key set at a URL or in a file (RFC 7517, 5)."""

    def __init__(self, location: str, clock: Clock) -> None:
        self._location = location
        self._clock = clock
        self._keys: KeySet | None = None
        self._loaded_at = self._failed_at = self._asked_for_unknown_at = _NEVER
        self._lock = asyncio.Lock()

    async def holding(self, kid: str | None) -> KeySet:
        """The keys, hopefully with the key `kid` among them.

        Raises RetryableError where the issuer has never answered. Keys that were had once outlive its outages.
        """
        async with self._lock:
            keys = self._keys
            if keys is None or self._clock.now() - self._loaded_at >= MAX_AGE:
                keys = await self._load()
            if kid is None or any(key.kid == kid for key in keys):
                return keys
            if self._clock.now() - self._asked_for_unknown_at >= UNKNOWN_KEY_INTERVAL:
                self._asked_for_unknown_at = self._clock.now()
                keys = await self._load()
            return keys

    async def _load(self) -> KeySet:
        now = self._clock.now()
        if now - self._failed_at < FAILURE_INTERVAL:
            return self._kept()
        try:
            document = json.loads(await self._read())
            self._keys = KeySet.import_key_set(document)
            self._loaded_at = now
        except (OSError, httpx.HTTPError, JoseError, ValueError, KeyError, TypeError) as error:
            self._failed_at = now
            log.warning("the issuer's keys cannot be read", location=self._location, error=repr(error))
        return self._kept()

    async def _read(self) -> bytes:
        if "://" not in self._location:
            return await asyncio.to_thread(Path(self._location).read_bytes)
        async with httpx.AsyncClient(timeout=5) as client:
            response = await client.get(self._location)
            response.raise_for_status()
            return response.content

    def _kept(self) -> KeySet:
        if self._keys is None:
            raise RetryableError("the issuer's keys cannot be read for now")
        return self._keys
