"""Reads the issuer's public keys from a URL or file, in the background, so that no request hangs on the issuer."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog
from joserfc.jwk import KeySet

from muster_runtime.errors import RetryableError
from muster_runtime.http.issuer_metadata import endpoint, is_discoverable, metadata_addresses, parse_metadata
from muster_runtime.http.usable_keys import usable_keys
from muster_runtime.secrets import version_of

log = structlog.get_logger(__name__)

# Seconds after which keys are read again; the old ones stay in use until new ones have been read.
MAX_AGE = 600.0

# An attacker can name a new key in every request, so the issuer is asked for unknown keys at most this often.
UNKNOWN_KEY_INTERVAL = 30.0

# The pause after a failure.
FAILURE_INTERVAL = 2.0

# The time limit for a whole response, however slowly its bytes arrive, and its maximum size.
READ_SECONDS = 5.0
MAX_BYTES = 1024 * 1024

# How long a request waits for an unknown key, and how many requests may wait at once: callers without a valid token
# must not fill the service with waiting requests. A request waits for the first keys as long as reading them may take,
# since nothing can be served without them.
WAIT_SECONDS = 1.0
MAX_WAITING = 50


class KeySource:
    """The key set at a URL or in a file (RFC 7517, 5). Only one task reads it at a time.

    Without a `location`, the issuer's metadata say where it is. Raises ValueError if the issuer is then not a URL.
    """

    def __init__(self, location: str, monotonic: Callable[[], float] = time.monotonic, *, issuer: str = "") -> None:
        if not location and not is_discoverable(issuer):
            raise ValueError("MUSTER_OIDC_JWKS must be set unless MUSTER_OIDC_ISSUER is a URL with metadata")
        self._location = location
        self._issuer = issuer
        self._monotonic = monotonic
        self._file = Path(location) if location and "://" not in location else None
        self._version: tuple[int, ...] | None = None  # the file's version when it was last read
        self._keys: KeySet | None = None
        self._started_at = monotonic()
        self._read_at = self._failed_at = self._asked_for_unknown_at = -math.inf
        self._failure = ""
        self._reading: asyncio.Task[None] | None = None
        self._waiting = 0

    @property
    def at_hand(self) -> bool:
        """Whether there are keys. Once read, they stay through any outage of the issuer."""
        return self._keys is not None

    @property
    def age(self) -> float:
        """Seconds since the keys were last read, or since the start if they never were."""
        return self._monotonic() - max(self._read_at, self._started_at)

    async def holding(self, kid: str | None) -> KeySet:
        """The current keys, after another read if `kid` is not among them; it may still be missing.

        Raises RetryableError if there are no keys, or if the issuer does not answer in time about an unknown `kid`.
        """
        self._ask_if_old()
        if self._keys is not None and kid is not None and all(key.kid != kid for key in self._keys):
            if self._monotonic() - self._asked_for_unknown_at >= UNKNOWN_KEY_INTERVAL:
                self._asked_for_unknown_at = self._monotonic()
                self._ask()
            await self._wait(WAIT_SECONDS)
        elif self._keys is None:
            await self._wait(READ_SECONDS)
        if self._keys is None:
            raise RetryableError("the issuer's keys cannot be read right now")
        return self._keys

    async def reason(self) -> str | None:
        """What is wrong with the issuer, if anything. Starts a read if the keys are old."""
        self._ask_if_old()
        if not self.at_hand and self._reading is not None:
            await asyncio.wait([self._reading], timeout=WAIT_SECONDS)
        if self._failure:
            return f"the token issuer's keys cannot be read: {self._failure}"
        return None if self.at_hand else "the token issuer has not responded yet"

    def _ask_if_old(self) -> None:
        if self._monotonic() - self._read_at >= MAX_AGE or self._is_replaced():
            self._ask()

    def _is_replaced(self) -> bool:
        """Whether the keys are in a file that has changed since it was read."""
        return self._file is not None and self._keys is not None and version_of(self._file) != self._version

    def _ask(self) -> None:
        """Start a read, unless one is running or has just failed."""
        if self._reading is None and self._monotonic() - self._failed_at >= FAILURE_INTERVAL:
            self._reading = asyncio.create_task(self._read(), name="issuer keys")

    async def _wait(self, seconds: float) -> None:
        if self._reading is None:
            return
        if self._waiting >= MAX_WAITING:
            raise RetryableError("too many requests wait for the issuer's keys")
        self._waiting += 1
        try:
            read, _ = await asyncio.wait([self._reading], timeout=seconds)
        finally:
            self._waiting -= 1
        if not read:
            raise RetryableError("the token issuer does not respond")

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                document = json.loads(await self._document())
            keys = usable_keys(document)
        except Exception as error:  # whatever an issuer sends, the current keys stay in use
            self._failed_at = self._monotonic()
            self._failure = _describe(error)
            log.warning("issuer_keys_failed", error=self._failure)
        else:
            self._keys = keys
            self._read_at = self._monotonic()
            self._failure = ""
        finally:
            self._reading = None

    async def _document(self) -> bytes:
        if self._file is not None:
            self._version = version_of(self._file)  # before reading: a later write is noticed the next time
            return self._file.read_bytes()
        async with httpx.AsyncClient(timeout=READ_SECONDS) as client:
            return await _read(client, self._location or await self._discover(client))

    async def _discover(self, client: httpx.AsyncClient) -> str:
        """The address of the keys, looked up each time because an issuer may move them."""
        first, second = metadata_addresses(self._issuer)
        try:
            document = await _read(client, first)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            document = await _read(client, second)
        return endpoint(parse_metadata(document, self._issuer), "jwks_uri")


def _describe(error: Exception) -> str:
    """The failure, without the address, because its query may contain a secret."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    return f"{type(error).__name__} {error}".strip()


async def _read(client: httpx.AsyncClient, address: str) -> bytes:
    document = bytearray()
    async with client.stream("GET", address) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            document += part
            if len(document) > MAX_BYTES:
                raise ValueError(f"the document is larger than {MAX_BYTES} bytes")
    return bytes(document)
