"""The servers that an operator's command uses: a stack in a home folder, or those named in the environment."""

import inspect
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster_operator import servers
from muster_operator.failures import BadInput
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption, TokenOption
from muster_operator.output import Answer, finish

if TYPE_CHECKING:
    from muster_operator.access.administrator import Administrator
    from muster_operator.service import Service
    from muster_operator.session.tokens import Credential
    from muster_runtime.messaging.connection import KafkaConnection

_URL = re.compile(r"MUSTER_([A-Z]+)_URL")


@dataclass(frozen=True)
class Target:
    """The addresses of the services, Postgres (as superuser), and Kafka; unknown ones are empty.

    Without a `token`, `issue` gets one from the stack's issuer. `settings_of` returns the environment for a service's
    own commands, if a stack runs. `kafka_settings` are the fields of KafkaSettings that the environment does not set.
    """

    urls: Mapping[str, str]
    token: str
    admin_dsn: str
    kafka_settings: Mapping[str, str]
    topic_prefix: str
    home: Path = DEFAULT_HOME  # where it looked for a stack
    issue: Callable[..., str] | None = None
    settings_of: Callable[[str], Mapping[str, str]] | None = None

    @classmethod
    def find(cls, home: Path, token: str | None = None) -> "Target":
        """The stack in a home folder, or else the servers named in the environment.

        MUSTER_<SERVICE>_URL and MUSTER_ADMIN_DSN take precedence over the stack; MUSTER_KAFKA_BOOTSTRAP and
        MUSTER_TOPIC_PREFIX do not, because the stack itself was started with them. Raises BadInput for a home folder if
        muster-local is not installed.
        """
        if home != DEFAULT_HOME and not servers.stacks_are_known():
            raise BadInput("--home needs the package muster-local, which is not installed")
        stack = servers.of_stack(home)
        urls = {match[1].lower(): _url(name) for name in os.environ if (match := _URL.fullmatch(name)) and _url(name)}
        token, admin_dsn = token or _secret("MUSTER_TOKEN"), _secret("MUSTER_ADMIN_DSN")
        if stack is None:
            return cls(urls, token, admin_dsn, {}, os.environ.get("MUSTER_TOPIC_PREFIX", ""), home)
        return cls(
            {**stack.urls, **urls},
            token,
            admin_dsn or stack.admin_dsn,
            stack.kafka,
            stack.topic_prefix,
            home,
            stack.token,
            stack.settings_of,
        )

    @property
    def is_sandbox(self) -> bool:
        """Whether a sandbox's stack is the target."""
        return self.settings_of is not None

    @cached_property
    def kafka(self) -> "KafkaConnection":
        """The connection to Kafka; its address is empty if none is known.

        Raises BadInput for invalid settings, and for certificate files that cannot be used.
        """
        # Imported late, so that a command without Kafka loads no client.
        from pydantic import ValidationError

        from muster_runtime.kafka_settings import KafkaSettings
        from muster_runtime.messaging.connection import CertificatesUnusable, KafkaConnection
        from muster_runtime.secrets import SecretUnusable, explain

        try:
            kafka = KafkaConnection(KafkaSettings.model_validate(self.kafka_settings))
            kafka.options()
        except (SecretUnusable, ValidationError) as error:
            raise BadInput(explain(error)) from None
        except CertificatesUnusable as error:
            raise BadInput(str(error)) from None
        return kafka

    def credential(self, *scopes: str) -> "Credential":
        """The source of a command's tokens; the stack's issuer gives them these scopes. Raises BadInput."""
        # Imported late, so that a command without requests loads no HTTP client.
        from muster_operator.session.tokens import find_credential

        issue = self.issue
        return find_credential(self.token, None if issue is None else lambda: issue(*scopes))

    def require(self, *names: str) -> "Target":
        """Raise BadInput if one of these is unknown: `urls`, `admin_dsn`, or `kafka`."""
        how = {"urls": "MUSTER_<SERVICE>_URL", "admin_dsn": "MUSTER_ADMIN_DSN", "kafka": "MUSTER_KAFKA_BOOTSTRAP"}
        for name in names:
            if not (self.kafka.bootstrap if name == "kafka" else getattr(self, name)):
                raise self.lacking(how[name])
        return self

    def lacking(self, variable: str) -> BadInput:
        """The error to raise if neither a stack nor this environment variable names a server."""
        stack = f"no stack is running in {self.home.absolute()}, and " if servers.stacks_are_known() else ""
        start = ": run muster up, or set it" if stack else ""
        return BadInput(f"{stack}{variable} is not set{start}")

    def administrator(self) -> "Administrator":
        """A Kafka administrator's connection. Raises BadInput if Kafka's address is unknown."""
        # Imported late: most commands do not need its client, which is slow to load.
        from muster_operator.access.administrator import Administrator

        return Administrator(self.require("kafka").kafka.librdkafka_options())

    def url(self, service: str) -> str:
        """The base URL of a service. Raises BadInput if it is unknown."""
        self.require("urls")
        if service not in self.urls:
            raise BadInput(f"{service}: must be a service whose URL is known: {', '.join(self.urls)}")
        return self.urls[service]

    @asynccontextmanager
    async def services(
        self, only: str | None = None, *, scopes: tuple[str, ...] = ()
    ) -> AsyncIterator[dict[str, "Service"]]:
        """Each service by name, or `only` one, with a token for `scopes`, by default the operator's.

        Raises BadInput if no service's URL is known.
        """
        from muster_operator.service import connect

        self.require("urls")
        urls = self.urls if only is None else {only: self.url(only)}
        credential = self.credential(*(scopes or [f"{name}:operate" for name in urls]))
        async with AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(connect(name, url, credential)) for name, url in urls.items()}

    @asynccontextmanager
    async def service(self, name: str, *actions: str) -> AsyncIterator["Service"]:
        """One service, with a token for its scopes `<name>:<action>`. Raises BadInput if its URL is unknown."""
        async with self.services(name, scopes=tuple(f"{name}:{action}" for action in actions)) as services:
            yield services[name]


def _url(variable: str) -> str:
    """A URL from the environment; empty if none is set. Raises BadInput."""
    url = os.environ[variable]
    if url and not re.match(r"https?://[^/]", url):
        raise BadInput(f"{variable} must be a URL, such as https://billing.example")
    return url


def _secret(setting: str) -> str:
    """A secret from the environment, or from the file that it names. Raises BadInput for an unreadable file."""
    if setting in os.environ:
        return os.environ[setting]
    if f"{setting}_FILE" not in os.environ and "MUSTER_SECRETS_DIR" not in os.environ:
        return ""
    from muster_runtime.secrets import SecretUnusable, find_secret

    try:
        secret = find_secret(setting)
    except SecretUnusable as error:
        raise BadInput(str(error)) from None
    return secret.get_secret_value() if secret is not None else ""


def on_target(*, asks: bool = True) -> Callable[[Callable[..., Coroutine[Any, Any, Answer]]], Callable[..., None]]:
    """Turn a coroutine into a command that gets the Target described by --home, --token, and the environment.

    Only a command that calls services (`asks`) has --token.
    """
    common = [
        Parameter("home", Parameter.KEYWORD_ONLY, default=DEFAULT_HOME, annotation=HomeOption),
        Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
    ]
    if asks:
        common.insert(1, Parameter("token", Parameter.KEYWORD_ONLY, default=None, annotation=TokenOption))

    def command_of(work: Callable[..., Coroutine[Any, Any, Answer]]) -> Callable[..., None]:
        _, *own = inspect.signature(work).parameters.values()

        @wraps(work)
        def command(*, home: Path, as_json: bool, token: str | None = None, **arguments: Any) -> None:
            finish(work(Target.find(home, token), **arguments), as_json=as_json)

        command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
        return command

    return command_of
