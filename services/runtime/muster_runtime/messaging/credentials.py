"""This process's identity toward Kafka, read again for each connection: certificates, SCRAM credentials, tokens."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError
from pydantic import SecretStr

from muster_runtime.secrets import version_of

# How long the token issuer may take to answer.
TOKEN_SECONDS = 5.0

# The fraction of a token's lifetime during which new connections use it.
TOKEN_SHARE = 0.5

_log = structlog.get_logger(__name__)


class CertificateContext(ssl.SSLContext):
    """A TLS context whose certificates are in files. Each handshake uses the current contents of the files.

    If the files do not belong together, as in the middle of a replacement, the last good set stays in use, and
    `rejection` says why. Without a CA file, the system's CAs are trusted.
    """

    rejection: str | None
    _files: Sequence[str]
    _seen: Sequence[tuple[int, ...] | None]
    _current: ssl.SSLContext

    def __new__(cls, _ca: str, _certificate: str, _key: str) -> "CertificateContext":
        """Raises OSError if the files cannot be read or do not belong together."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca: str, certificate: str, key: str) -> None:
        self._files = (ca, certificate, key)
        self.rejection = None
        self._seen = self._versions()
        self._current = self._load()

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a handshake with the newest certificates."""
        self.refresh()
        return self._current.wrap_bio(*arguments, **options)

    def refresh(self) -> None:
        """Read the files again if one of them has changed."""
        seen = self._versions()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = self._load()
        except OSError as error:  # ssl.SSLError is one
            self.rejection = f"the new certificate files of Kafka are not used: {_reason(error)}"
            _log.warning("certificates_rejected", files=[file for file in self._files if file], reason=_reason(error))
            return
        self.rejection = None
        _log.info("certificates_replaced", files=[file for file in self._files if file])

    def _load(self) -> ssl.SSLContext:
        ca, certificate, key = self._files
        context = ssl.create_default_context(cafile=ca or None)
        if certificate:
            context.load_cert_chain(certificate, key)
        return context

    def _versions(self) -> Sequence[tuple[int, ...] | None]:
        return [version_of(Path(file)) if file else None for file in self._files]


class TokenSource(AbstractTokenProvider):
    """Tokens for SASL OAUTHBEARER, from the client credentials grant (RFC 6749, 4.4).

    Each new connection asks for one.
    """

    def __init__(self, url: str, client_id: str, client_secret: SecretStr, scope: str) -> None:
        self._url = url
        self._issuer = urlsplit(url).hostname  # for messages: the URL's query may contain a secret
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._asking = asyncio.Lock()
        self._token = ""
        self._fresh_until = self._valid_until = float("-inf")
        self._secret = ""  # the secret that the token was issued for

    async def token(self) -> str:
        """A token. Raises AuthenticationFailedError if the issuer gives none and the last one has expired."""
        async with self._asking:
            secret = self._client_secret.get_secret_value()
            if time.monotonic() >= self._fresh_until or secret != self._secret:
                try:
                    await self._renew(secret)
                except Exception as error:  # whatever the issuer answers, it is not a token
                    if time.monotonic() >= self._valid_until:
                        raise AuthenticationFailedError(f"no token from {self._issuer}: {_refusal(error)}") from None
                    _log.warning("kafka_token_not_renewed", error=_refusal(error))
            return self._token

    async def _renew(self, secret: str) -> None:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        asked_at = time.monotonic()
        async with asyncio.timeout(TOKEN_SECONDS), httpx.AsyncClient(timeout=TOKEN_SECONDS) as client:
            answer = await client.post(self._url, data=form, auth=(self._client_id, secret))
            answer.raise_for_status()
        document = answer.json()
        life = float(document.get("expires_in", 0))
        self._token, self._secret = str(document["access_token"]), secret
        self._fresh_until = asked_at + TOKEN_SHARE * life
        self._valid_until = asked_at + life


def _refusal(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    return type(error).__name__


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
