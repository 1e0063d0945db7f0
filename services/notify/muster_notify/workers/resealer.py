"""Reseals webhooks' secrets with the first key after a key rotation, so that an old key can be removed.

Nothing else changes: everyone who knows a secret can keep using it, and no audit row is written.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog
from cryptography.fernet import InvalidToken

from muster_notify.adapters.vault import Vault
from muster_notify.domain.endpoints import Endpoint
from muster_notify.repository import endpoints
from muster_runtime.context import new_context
from muster_runtime.database.transactions import RETRYABLE
from muster_runtime.service import Runtime

# How often to check the keys. Endpoints are checked when the keys have changed, and once per round: a process whose
# file is replaced later continues sealing with the old key until then.
LOOK_SECONDS = 2.0
ROUND_SECONDS = 300.0

# How many endpoints one step checks.
STEP = 100

_log = structlog.get_logger(__name__)


class Resealer:
    """The worker. Several processes may run it at once: under the agency's lock, each sees what another has done."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._unreadable = 0

    @property
    def warnings(self) -> Sequence[str]:
        """A warning if the last round found endpoints with a secret that no key opens."""
        if not self._unreadable:
            return []
        return [f"webhook endpoints have a secret that no key of MUSTER_SECRET_KEY opens: {self._unreadable}"]

    async def run(self, runtime: Runtime) -> None:
        """Reseal until canceled."""
        keys: Sequence[str] = ()
        again_at = 0.0
        while True:
            if (current := self._vault.keys) != keys or time.monotonic() >= again_at:
                try:
                    await self._seal_all(runtime)
                except RETRYABLE as error:
                    _log.warning("reseal_retried", error=repr(error))
                else:
                    keys, again_at = current, time.monotonic() + ROUND_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    async def _seal_all(self, runtime: Runtime) -> None:
        sealed, unreadable, place = 0, 0, ""
        while True:
            async with runtime.database.connection() as connection:
                found = await endpoints.list_with_secrets(connection, place, STEP)
            for endpoint in found:
                try:
                    if self._resealed(endpoint) is not None:
                        sealed += await self._seal(runtime, endpoint)
                except InvalidToken:
                    unreadable += 1
                    _log.error("webhook_secret_unreadable", webhook_id=endpoint.id, agency_id=endpoint.agency_id)
            if len(found) < STEP:
                break
            place = found[-1].id
        self._unreadable = unreadable
        if sealed:
            _log.info("webhook_secrets_resealed", endpoints=sealed, unreadable=unreadable)

    async def _seal(self, runtime: Runtime, endpoint: Endpoint) -> bool:
        """Reseal an endpoint's secrets, as they are under its agency's lock. Raises InvalidToken."""
        context = new_context(runtime.service.name, runtime.clock.now())
        async with runtime.database.write(endpoint.agency_id, context=context) as uow:
            locked = await endpoints.find_endpoint(uow.connection, endpoint.id)
            secrets = self._resealed(locked)
            if secrets is None:
                return False
            await endpoints.save_seals(uow.connection, locked.id, *secrets)
        return True

    def _resealed(self, endpoint: Endpoint) -> tuple[bytes, bytes | None] | None:
        """Both secrets sealed with the first key; None if they already are, or there is no secret.

        Raises InvalidToken.
        """
        if endpoint.sealed_secret is None:
            return None
        secret = self._vault.reseal(endpoint.sealed_secret)
        previous = endpoint.previous_secret and self._vault.reseal(endpoint.previous_secret)
        if secret is None and previous is None:
            return None
        return secret or endpoint.sealed_secret, previous or endpoint.previous_secret
