"""The servers that an operator's command uses: the stack's in a home folder, or those that the environment names."""

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
    """Where the services, Postgres (as superuser) and Kafka are; what is not known is empty.

    Without a `token`, the stack's issuer may issue one with `issue`. `settings_of` answers the environment of a
    service's own commands, if a stack runs. `kafka_settings` are those that the environment does not give.
    """

    urls: Mapping[str, str]
    token: str
    admin_dsn: str
    kafka_settings: Mapping[str, str]
    topic_prefix: str
    home: Path = DEFAULT_HOME  # where a stack was looked for
    issue: Callable[..., str] | None = None
    settings_of: Callable[[str], Mapping[str, str]] | None = None

    @classmethod
    def find(cls, home: Path, token: str | None = None) -> "Target":
        """The stack that runs in a home folder, or else what the environment names.

        MUSTER_<SERVICE>_URL and MUSTER_ADMIN_DSN take precedence over the stack; MUSTER_KAFKA_BOOTSTRAP and
        MUSTER_TOPIC_PREFIX, from which the stack itself was started, do not.
        Raises BadInput for a home folder if nothing that runs stacks is installed.
        """
        if home != DEFAULT_HOME and not servers.stacks_are_known():
            raise BadInput("--home needs the distribution muster-local, which is not installed")
        stack = servers.of_stack(home)
        urls = {match[1].lower(): url for name, url in os.environ.items() if url and (match := _URL.fullmatch(name))}
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

    @cached_property
    def kafka(self) -> "KafkaConnection":
        """How Kafka is reached; at no address, if none is known. Raises BadInput where settings contradict others."""
        # A command that does not ask Kafka loads no client.
        from pydantic import ValidationError

        from muster_runtime.kafka_settings import KafkaSettings
        from muster_runtime.messaging.connection import KafkaConnection
        from muster_runtime.secrets import SecretUnusable, explain

        try:
            return KafkaConnection(KafkaSettings.model_validate(self.kafka_settings))
        except (SecretUnusable, ValidationError) as error:
            raise BadInput(explain(error)) from None

    def credential(self, *scopes: str) -> "Credential":
        """What issues the tokens of a command; the stack's issuer gives them these scopes. Raises BadInput."""
        # A command that asks no service loads no HTTP client.
        from muster_operator.session.tokens import find_credential

        issue = self.issue
        return find_credential(self.token, None if issue is None else lambda: issue(*scopes))

    def require(self, *names: str) -> "Target":
        """Raise BadInput if one of `urls`, `admin_dsn`, `kafka` is not known."""
        how = {"urls": "MUSTER_<SERVICE>_URL", "admin_dsn": "MUSTER_ADMIN_DSN", "kafka": "MUSTER_KAFKA_BOOTSTRAP"}
        for name in names:
            if not (self.kafka.bootstrap if name == "kafka" else getattr(self, name)):
                raise self.lacking(how[name])
        return self

    def lacking(self, variable: str) -> BadInput:
        """The error that neither a stack nor this variable of the environment says where a server is."""
        stack = f"no stack is running in {self.home.absolute()}, and " if servers.stacks_are_known() else ""
        return BadInput(f"{stack}{variable} is not set")

    def administrator(self) -> "Administrator":
        """Kafka's administrator. Raises BadInput if it is not known where Kafka is."""
        # Most commands need none, and its client takes long to load.
        from muster_operator.access.administrator import Administrator

        return Administrator(self.require("kafka").kafka.librdkafka_options())

    def url(self, service: str) -> str:
        """The address of a service. Raises BadInput if there is none."""
        self.require("urls")
        if service not in self.urls:
            raise BadInput(f"--service {service}: must be one of {', '.join(self.urls)}")
        return self.urls[service]

    @asynccontextmanager
    async def services(
        self, only: str | None = None, *, scopes: tuple[str, ...] = ()
    ) -> AsyncIterator[dict[str, "Service"]]:
        """Each service by its name, or only one, with a token for `scopes`, by default the operator's.

        Raises BadInput if there is none.
        """
        from muster_operator.service import connect

        self.require("urls")
        urls = self.urls if only is None else {only: self.url(only)}
        credential = self.credential(*(scopes or [f"{name}:operate" for name in urls]))
        async with AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(connect(name, url, credential)) for name, url in urls.items()}


def _secret(setting: str) -> str:
    """A secret of the environment, or of the file that it names. Raises BadInput for a file that cannot be read."""
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
    """Make a command that works on a Target: the one that --home, --token, and the environment name.

    A command that does not call services (`asks`) has no --token.
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
