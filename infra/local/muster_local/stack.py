"""The whole stack behind one handle: what the `muster` command, the demo and the end-to-end tests use."""

from collections.abc import Callable
from pathlib import Path


class StackFailed(Exception):
    """The stack did not start; nothing is left running. The message says which process failed, with its last lines."""


class Stack:
    """A running stack: Postgres, Kafka, the mail sink and the four services, under one supervisor process."""

    home: Path

    @classmethod
    async def start(
        cls, home: Path, *, progress: Callable[[str], None] = lambda _: None, detached: bool = False
    ) -> "Stack":
        """Start the stack of a home folder, or join the one that runs there.

        `progress` is told each step in plain words. Unless `detached`, the stack ends with this process,
        however that ends.

        Raises StackFailed.
        """
        raise NotImplementedError

    @classmethod
    def running(cls, home: Path) -> "Stack | None":
        """The stack that runs in a home folder, if one does."""
        raise NotImplementedError

    def service_url(self, name: str) -> str:
        """The address of a service's HTTP interface, without a slash at its end."""
        raise NotImplementedError

    @property
    def admin_dsn(self) -> str:
        """The superuser's address of the one database; each service has a schema of its own name in it."""
        raise NotImplementedError

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        raise NotImplementedError

    @property
    def topic_prefix(self) -> str:
        """What stands before each topic's and consumer group's name: empty on an embedded Kafka."""
        raise NotImplementedError

    @property
    def mail_dir(self) -> Path:
        """Where the mail sink keeps each message, as a file that ends in .eml."""
        raise NotImplementedError

    def token(self, *scopes: str, agency: str | None = None, subject: str = "operator") -> str:
        """A bearer token of the sandbox's issuer, valid for a day of real time."""
        raise NotImplementedError

    def pids(self) -> dict[str, int]:
        """The process id of each running process by its name: postgres, kafka, mail and the services."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop every process; the data stay. Stopping twice is no error."""
        raise NotImplementedError
