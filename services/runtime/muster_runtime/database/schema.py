"""A service's schema: which migrations its code knows, which of them it needs, and which a database has.

A migration file says in a line of its own what it is to the code of the release before:

    -- muster: expand      that code continues beside it
    -- muster: contract    that code breaks: something that it uses is changed or taken away

The version of a migration that contracts ends in 1, and no other does: that code lacks the file, and finds only the
version in the database.

A further line, `-- muster: optional`, says that the code of its own release works without it, as without an index. The
last migration that is not optional is the least that a database must have.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from muster_runtime.database.connections import Connection
from muster_runtime.errors import RetryableError, describe

RUNTIME_MIGRATIONS = Path(__file__).parent.parent / "migrations"

_TAG = re.compile(r"^-- muster: (.*?)\s*$", re.MULTILINE)

OPTIONAL = "optional"


class MigrationsMissing(Exception):
    """The package was installed without its migrations: it is not known whether any is pending."""


class MigrationsPending(RetryableError):
    """The database lacks migrations that the code needs: the work is not at fault, and succeeds after the migration."""

    def __init__(self, versions: Sequence[str], error: Exception) -> None:
        super().__init__(f"{', '.join(versions)}: run the migrations; until then: {describe(error)}")


class SchemaTooNew(RetryableError):
    """A newer migration contracted the schema: the work is not at fault, and succeeds with newer code."""

    def __init__(self, versions: Sequence[str], error: Exception) -> None:
        super().__init__(
            f"{', '.join(versions)} changed what this process uses: run a newer version: {describe(error)}"
        )


@dataclass(frozen=True)
class Compared:
    """A database compared with the code: its last version, None if it has none, and the versions that only one has.

    The code does not work without the `needed` versions, which are some of those that only the code has (`behind`), nor
    with the `contracted` ones, which are some of those that only the database has (`ahead`).
    """

    database: str | None
    ahead: Sequence[str]
    behind: Sequence[str]
    needed: Sequence[str]
    contracted: Sequence[str]

    @property
    def fits(self) -> bool:
        """Whether the code works with this database."""
        return not self.needed and not self.contracted

    def misfit(self, error: Exception) -> MigrationsPending | SchemaTooNew | None:
        """The error that blames the schema instead of the work that failed; None if the schema fits the code."""
        if self.contracted:
            return SchemaTooNew(self.contracted, error)
        return MigrationsPending(self.needed, error) if self.needed else None


@dataclass(frozen=True)
class Schema:
    """A service's schema, by its name; `migrations` is the folder with the service's own, beside the runtime's."""

    name: str
    migrations: Path

    @property
    def head(self) -> str:
        """The last version that the code knows. Raises MigrationsMissing."""
        return max(files_of(self.migrations))

    @property
    def minimum(self) -> str:
        """The version that a database must have for the code to work. Raises MigrationsMissing."""
        files = files_of(self.migrations)
        return max(version for version, file in files.items() if not _is_optional(file))

    async def compare(self, connection: Connection) -> Compared:
        """The database beside the code, as any of the service's roles may see it. Raises MigrationsMissing."""
        files = files_of(self.migrations)
        there = await _applied(connection)
        ahead, behind = sorted(there - files.keys()), sorted(files.keys() - there)
        return Compared(
            max(there, default=None),
            ahead=ahead,
            behind=behind,
            needed=[version for version in behind if not _is_optional(files[version])],
            contracted=[version for version in ahead if contracts(version)],
        )


class Fitting:
    """Whether a database fits the code's schema, as last compared. Without a schema, it always does."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema
        self.last: Compared | None = None

    @property
    def is_known(self) -> bool:
        """Whether it fit when last compared."""
        return self._schema is None or (self.last is not None and self.last.fits)

    async def ask(self, connection: Connection) -> bool:
        """Compare again, and answer whether it fits. Readiness reports missing migrations."""
        if self._schema is None:
            return True
        try:
            self.last = await self._schema.compare(connection)
        except MigrationsMissing:
            return False
        return self.last.fits

    async def blame(self, connection: Connection, error: Exception, before: Compared | None) -> None:
        """Raise MigrationsPending or SchemaTooNew if the schema does not fit the code, or did not `before` the work.

        It may fit again since: a migration may have ended, or been taken back, just after the work had failed.
        """
        await self.ask(connection)
        for compared in (self.last, before):
            if compared is not None and (misfit := compared.misfit(error)):
                raise misfit from error


def contracts(version: str) -> bool:
    """Whether the migration of this version breaks the code of the release before."""
    return version.endswith("1")


def tags_of(file: Path) -> Sequence[str]:
    """What a migration's file says it is."""
    return _TAG.findall(file.read_text("utf-8"))


def files_of(directory: Path) -> dict[str, Path]:
    """The migrations of a schema by version: the runtime's, and the service's own in the folder.

    Raises MigrationsMissing if this installation came without them.
    """
    files: dict[str, Path] = {}
    for folder in (RUNTIME_MIGRATIONS, directory):
        found = {file.name.partition("_")[0]: file for file in folder.glob("*.sql")}
        if not found:
            raise MigrationsMissing(f"{folder} has no migrations: reinstall the package")
        files |= found
    return files


def _is_optional(file: Path) -> bool:
    return OPTIONAL in tags_of(file)


async def _applied(connection: Connection) -> Collection[str]:
    try:
        rows = await connection.fetch("select version from schema_migrations")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
        return set()  # the migration that grants the right is itself not applied
    return {row["version"] for row in rows}
