"""How to connect to Kafka: the settings that every client is created with, and why Kafka refused a connection."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError
from faststream.security import BaseSecurity, SASLOAuthBearer, SASLScram512

from muster_runtime.kafka_settings import KafkaSettings
from muster_runtime.messaging.client_internals import LiveText, login_seconds
from muster_runtime.messaging.credentials import CertificateContext, TokenSource

# How long the brokers have to accept or refuse a test connection.
ASK_SECONDS = 1.5

# How long each broker has to accept a login before it counts as unreachable.
LOGIN_SECONDS = 10

# What kind of resource Kafka denied access to, by the type of the error.
_FORBIDDEN: Mapping[type[BaseException], str] = {
    errors.TopicAuthorizationFailedError: "topic",
    errors.GroupAuthorizationFailedError: "group",
    errors.TransactionalIdAuthorizationFailed: "transactional id",
    errors.ClusterAuthorizationFailedError: "cluster",
}

_REFUSED = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)


@dataclass(frozen=True)
class Logins:
    """The brokers that never end a login, and those that this process could not connect to, each as host:port."""

    endless: Sequence[str]
    unreachable: Sequence[str]


class CertificatesUnusable(OSError):
    """The certificate files in the settings cannot be read, or do not belong together."""


class KafkaConnection:
    """The brokers, protocol, and credentials from the settings. Each new connection reads the credentials again."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.bootstrap = settings.kafka_bootstrap
        self.is_plain = settings.kafka_security_protocol == "PLAINTEXT"
        self._mechanism: str | None = None
        self.tokens: TokenSource | None = None
        if settings.kafka_security_protocol == "SASL_SSL":
            self._mechanism = settings.kafka_sasl_mechanism
            if self._mechanism == "OAUTHBEARER":
                url, client_id, scope = settings.kafka_token_url, settings.kafka_client_id, settings.kafka_scope
                self.tokens = TokenSource(url, client_id, settings.kafka_client_secret, scope)

    @classmethod
    def plain(cls, bootstrap: str) -> Self:
        """A connection without TLS or credentials, as to a sandbox's brokers."""
        return cls(KafkaSettings.model_construct(kafka_bootstrap=bootstrap))

    def options(self) -> dict[str, Any]:
        """The options for any aiokafka client. Raises CertificatesUnusable."""
        return {"bootstrap_servers": self.bootstrap, **self._security_options()}

    def security(self) -> BaseSecurity | None:
        """The same for FastStream, which takes `tokens` as a separate option."""
        if self.is_plain:
            return None
        if self.tokens is not None:
            return SASLOAuthBearer(ssl_context=self._context)
        if self._mechanism is not None:
            return SASLScram512(*self._credentials(), ssl_context=self._context)
        return BaseSecurity(ssl_context=self._context)

    def librdkafka_options(self) -> dict[str, Any]:
        """The configuration of a librdkafka client, with the current credentials."""
        settings = self._settings
        options = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": settings.kafka_security_protocol,
            "ssl.ca.location": settings.kafka_ca_file,
            "ssl.certificate.location": settings.kafka_certificate_file,
            "ssl.key.location": settings.kafka_key_file,
            "sasl.mechanism": self._mechanism,
        }
        if self.tokens is not None:
            options |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": settings.kafka_client_id,
                "sasl.oauthbearer.client.secret": settings.kafka_client_secret.get_secret_value(),
                "sasl.oauthbearer.token.endpoint.url": settings.kafka_token_url,
                "sasl.oauthbearer.scope": settings.kafka_scope,
            }
        elif self._mechanism is not None:
            options["sasl.username"] = settings.kafka_username.get_secret_value()
            options["sasl.password"] = settings.kafka_password.get_secret_value()
        return {name: value for name, value in options.items() if value}

    @property
    def user(self) -> str:
        """The user that this process connects as, for messages."""
        if self.tokens is not None:
            return self._settings.kafka_client_id
        return self._settings.kafka_username.get_secret_value() or "named in the certificate"

    @property
    def warnings(self) -> Sequence[str]:
        """Why new certificate files are not used, if so."""
        if self.is_plain:
            return []
        self._context.refresh()
        return [self._context.rejection] if self._context.rejection else []

    async def logins(self, brokers: Iterable[tuple[str, int]]) -> Logins:
        """Connect to all of these brokers at once, each by host and port, to see how long their logins last."""
        options = self._security_options()
        endless, unreachable = [], []

        async def log_in(host: str, port: int) -> None:
            try:
                async with asyncio.timeout(LOGIN_SECONDS):
                    if await login_seconds(host, port, options) == 0:
                        endless.append(f"{host}:{port}")
            except (KafkaError, OSError, TimeoutError):
                unreachable.append(f"{host}:{port}")

        await asyncio.gather(*(log_in(host, port) for host, port in brokers))
        return Logins(sorted(endless), sorted(unreachable))

    async def failure(self, error: BaseException) -> str:
        """Why a client failed: Kafka denied it access, refused its login or certificate, or is unreachable."""
        return await self.refusal(error) or unreachable(error)

    async def refusal(self, error: BaseException) -> str | None:
        """Why Kafka denied a client access, or refused its login or certificate; None if it did not.

        The client's own error says only that no broker answered, so this connects to the brokers once more.
        """
        if reason := forbidden(error):
            return reason
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                return await self._refusal_by_a_broker()
        return None

    async def _refusal_by_a_broker(self) -> str | None:
        if self.is_plain:
            return None
        options = self._security_options()
        for host, port, _ in collect_hosts(self.bootstrap, randomize=False):
            try:
                connection = await create_conn(host, port, **options)
            except (KafkaError, OSError, TimeoutError) as error:
                if reason := self._refusal(error):
                    return reason
            else:
                await connection.close()
        return None

    def _refusal(self, error: BaseException) -> str | None:
        """Why a broker refused the connection, or why this process refused the broker."""
        cause = error.__cause__ if isinstance(error, errors.KafkaConnectionError) and error.__cause__ else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of Kafka is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"Kafka refuses the certificate or the protocol of this process: {cause.reason or cause.strerror}"
        if isinstance(cause, _REFUSED):
            return f"Kafka refuses the user {self.user}: {cause.args[0] if cause.args else type(cause).__name__}"
        return None

    @cached_property
    def _context(self) -> CertificateContext:
        settings = self._settings
        files = settings.kafka_ca_file, settings.kafka_certificate_file, settings.kafka_key_file
        try:
            return CertificateContext(*files)
        except OSError as error:
            raise CertificatesUnusable(f"the certificate files of Kafka cannot be used: {error}") from None

    def _credentials(self) -> tuple[LiveText, LiveText]:
        return LiveText(self._settings.kafka_username), LiveText(self._settings.kafka_password)

    def _security_options(self) -> dict[str, Any]:
        if self.is_plain:
            return {}
        options: dict[str, Any] = {
            "security_protocol": self._settings.kafka_security_protocol,
            "ssl_context": self._context,
        }
        if self._mechanism is not None:
            options["sasl_mechanism"] = self._mechanism
            if self.tokens is not None:
                options["sasl_oauth_token_provider"] = self.tokens
            else:
                options["sasl_plain_username"], options["sasl_plain_password"] = self._credentials()
        return options


def unreachable(error: BaseException) -> str:
    """Why a client failed, if Kafka refused nothing."""
    return f"Kafka cannot be reached: {type(error).__name__}"


def forbidden(error: BaseException) -> str | None:
    """What Kafka denies this process access to; None if that is not the error."""
    kind = _FORBIDDEN.get(type(error))
    if kind is None:
        return None
    return " ".join(["Kafka denies access to the", kind, *sorted(denied_names(error))])


def denied_names(error: BaseException) -> set[str]:
    """The names of what Kafka denies this process access to, from such an error."""
    arguments = (argument if isinstance(argument, set) else {argument} for argument in error.args)
    return {str(name) for names in arguments for name in names}
