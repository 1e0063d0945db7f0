"""An OAuth client for an operator's commands.

Sources: RFC 6749 (4.4 client credentials, 6 refresh), RFC 7009 (revocation), RFC 8414 and OpenID Connect Discovery 1.0
(metadata), RFC 8628 (device flow), RFC 8707 (`resource`).
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx

from muster_operator.failures import BadInput, Refused, TimedOut, Unreachable
from muster_runtime.clock import SystemClock
from muster_runtime.http.issuer_metadata import (
    MetadataRefused,
    endpoint,
    is_discoverable,
    metadata_addresses,
    parse_metadata,
)

ISSUER, CLIENT_ID = "MUSTER_OIDC_ISSUER", "MUSTER_CLIENT_ID"
SECRET, SECRET_FILE = "MUSTER_CLIENT_SECRET", "MUSTER_CLIENT_SECRET_FILE"
SCOPE, RESOURCE = "MUSTER_OIDC_SCOPE", "MUSTER_OIDC_RESOURCE"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SECONDS = 10.0

_MARGIN = timedelta(seconds=60)

# Used if a provider does not say how long its token lives.
_LIFETIME_SECONDS = 300


@dataclass(frozen=True)
class Tokens:
    """A token endpoint's reply."""

    access_token: str
    expires_at: datetime
    refresh_token: str | None

    @property
    def are_fresh(self) -> bool:
        """Whether the access token outlives a request: it is valid for another minute."""
        return SystemClock().now() + _MARGIN < self.expires_at


class ProviderRefused(Refused):
    """The provider refused a request; `code` is its error code (RFC 6749, 5.2)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Client:
    """A client registered at a provider; without a `secret`, a public client.

    `scope` is what a login requests. `resource` names the API that its tokens are for, if the provider requires it.
    """

    issuer: str
    client_id: str
    secret: str = ""
    scope: str = ""
    resource: str = ""

    @classmethod
    def of_environment(cls, issuer: str = "", client_id: str = "") -> "Client":
        """The client named by the options or else by the environment. Raises BadInput."""
        issuer = issuer or os.environ.get(ISSUER, "")
        client_id = client_id or os.environ.get(CLIENT_ID, "")
        for name, value in ((ISSUER, issuer), (CLIENT_ID, client_id)):
            if not value:
                raise BadInput(f"{name} is not set: it names the identity provider's {_MEANING[name]}")
        if not is_discoverable(issuer):
            raise BadInput(f"{ISSUER}: {issuer} must be a URL")
        parts = urlsplit(issuer)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise BadInput(f"{ISSUER}: {issuer} must be https: tokens would be sent in plain text")
        environ = os.environ
        return cls(issuer, client_id, secret_of_environment(), environ.get(SCOPE, ""), environ.get(RESOURCE, ""))

    def by_credentials(self) -> Tokens:
        """Tokens for the client itself (RFC 6749, 4.4)."""
        return self._tokens({"grant_type": "client_credentials"} | self._asked())

    def begin_device_flow(self) -> Mapping[str, Any]:
        """Begin a login; return the provider's reply (RFC 8628, 3.2)."""
        if "device_authorization_endpoint" not in self._metadata:
            raise Refused(f"{self.issuer} does not offer the device flow")
        reply = self._post("device_authorization_endpoint", self._asked("openid offline_access"))
        for name in ("device_code", "user_code", "verification_uri"):
            if not isinstance(reply.get(name), str) or not reply[name].isprintable():
                raise Refused(f"{self.issuer} answered a login without a valid {name}")
        return reply

    def by_device_code(self, device_code: str) -> Tokens:
        """Tokens for the person who approved a login (RFC 8628, 3.4)."""
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        return self._tokens({"grant_type": grant, "device_code": device_code})

    def by_refresh_token(self, refresh_token: str) -> Tokens:
        """Fresh tokens; they keep the old refresh token unless the provider sends a new one."""
        fresh = self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token} | self._resource())
        return Tokens(fresh.access_token, fresh.expires_at, fresh.refresh_token or refresh_token)

    def revoke(self, refresh_token: str) -> None:
        """End a session at the provider, if it supports revocation (RFC 7009)."""
        if "revocation_endpoint" in self._metadata:
            self._post("revocation_endpoint", {"token": refresh_token, "token_type_hint": "refresh_token"})

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(verify=ssl.create_default_context(), timeout=_SECONDS)

    @cached_property
    def _metadata(self) -> Mapping[str, Any]:
        with self._asking() as http:
            first, second = metadata_addresses(self.issuer)
            reply = http.get(first)
            if reply.status_code == httpx.codes.NOT_FOUND:
                reply = http.get(second)
        if reply.is_error:
            raise Unreachable(f"{self.issuer} answered {reply.status_code} instead of its metadata")
        try:
            return parse_metadata(reply.content, self.issuer)
        except MetadataRefused as error:
            raise Refused(str(error)) from None

    def _asked(self, otherwise: str = "") -> dict[str, str]:
        scope = self.scope or otherwise
        return ({"scope": scope} if scope else {}) | self._resource()

    def _resource(self) -> dict[str, str]:
        return {"resource": self.resource} if self.resource else {}

    def _tokens(self, form: dict[str, str]) -> Tokens:
        now = SystemClock().now()
        reply = self._post("token_endpoint", form)
        token, lifetime, refresh = (reply.get(name) for name in ("access_token", "expires_in", "refresh_token"))
        if not isinstance(token, str) or not token or str(reply.get("token_type")).lower() != "bearer":
            raise Refused(f"{self.issuer} answered without a bearer token")
        seconds = lifetime if isinstance(lifetime, int | float) else _LIFETIME_SECONDS
        return Tokens(token, now + timedelta(seconds=seconds), refresh if isinstance(refresh, str) else None)

    def _post(self, name: str, form: dict[str, str]) -> Mapping[str, Any]:
        try:
            address = endpoint(self._metadata, name)
        except MetadataRefused as error:
            raise Refused(str(error)) from None
        # RFC 6749, 2.3.1: both are form-encoded before they go into the header.
        basic = httpx.BasicAuth(quote_plus(self.client_id), quote_plus(self.secret)) if self.secret else httpx.Auth()
        form = form if self.secret else {"client_id": self.client_id} | form
        with self._asking() as http:
            reply = http.post(address, data=form, auth=basic)
        try:
            answer = reply.json() if reply.content else {}
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Refused(f"{self.issuer} answered {reply.status_code} without JSON")
        if reply.is_error:
            code = str(answer.get("error", reply.status_code))
            said = f"{code}: {answer['error_description']}" if "error_description" in answer else code
            raise ProviderRefused(code, f"{self.issuer} refused: {said[:500]}")
        return answer

    @contextmanager
    def _asking(self) -> Iterator[httpx.Client]:
        try:
            yield self._http
        except httpx.ConnectTimeout as error:
            raise Unreachable(f"{self.issuer} does not answer: {error or type(error).__name__}") from None
        except httpx.TimeoutException:
            raise TimedOut(f"{self.issuer} did not answer in time") from None
        except httpx.InvalidURL:
            raise BadInput(f"{ISSUER}: {self.issuer} and the endpoints in its metadata must be URLs") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.issuer} does not answer: {error or type(error).__name__}") from None


_MEANING = {ISSUER: "issuer, a URL", CLIENT_ID: "client of this command"}


def secret_of_environment() -> str:
    """The client's secret, from the environment or the file it names; empty if neither is set. Raises BadInput."""
    file = os.environ.get(SECRET_FILE, "")
    if not file:
        return os.environ.get(SECRET, "")
    if os.environ.get(SECRET):
        raise BadInput(f"{SECRET} and {SECRET_FILE} are both set: set one of them")
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{SECRET_FILE}: {file} cannot be read: {error}") from None
