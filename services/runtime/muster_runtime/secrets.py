"""Secrets: from the environment, or from files that may be replaced while a process runs.

Keep the secret object, never its text: `get_secret_value` returns the file's current content. So the next connection,
login, or seal uses a rotated secret without a restart.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import structlog
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from muster_runtime.plain_rules import plain_rule

PREFIX = "MUSTER_"

# A folder with one file per secret, named like its environment variable, as Kubernetes mounts a Secret.
FOLDER = f"{PREFIX}SECRETS_DIR"

# The minimum length of a secret in production.
SHORTEST = 16

# A text with fewer different characters than this is a pattern, not a secret.
FEWEST_DIFFERENT = 6

# The words that examples, defaults, and manuals use as secrets.
_EXAMPLE = re.compile(
    r"(?:change|changeme|password|passwd|pass|secret|example|sample|default|sandbox|test|demo|dummy|admin|root|user"
    r"|muster|postgres|postgresql|kafka|smtp|webhook|subject|client|enrollment|entitlements|billing|notify|api|worker"
    r"|owner|key|token|your|my|the|me|to|in|a|of|here|replace|this|please|insert|put|or|and|not|is|it|be|kept"
    r"|for|ever|with|do|use|keep|characters|bytes|long|very|really|random|string|value|[\W\d_])+",
    re.IGNORECASE,
)

_log = structlog.get_logger(__name__)


class SecretUnusable(Exception):
    """A secret cannot be read, or is given twice; the message names its settings and never quotes it."""


class FileSecret(SecretStr):
    """A secret in a file, read again when the file is replaced.

    New content is not used if it cannot be read, is empty, or makes `refuse` raise ValueError. The last good content
    stays in use, and `rejection` says why.
    """

    def __init__(self, setting: str, file: Path) -> None:
        self.setting = setting
        self.rejection: str | None = None
        self.refuse: Callable[[str], None] | None = None
        self._file = file
        self._seen = version_of(file)
        try:
            super().__init__(_read(file))
        except (OSError, ValueError) as error:
            raise SecretUnusable(f"{setting}: {_reason(error)}") from None

    def get_secret_value(self) -> str:
        """The newest good content of the file, without a final line break."""
        version = version_of(self._file)
        if version != self._seen:
            self._seen = version  # first, because the check may read the value
            self._replace()
        return self._secret_value

    def _replace(self) -> None:
        try:
            text = _read(self._file)
            if text != self._secret_value and self.refuse is not None:
                self.refuse(text)
        except (OSError, ValueError) as error:
            self.rejection = f"the new content of the file of {self.setting} is not used: {_reason(error)}"
            _log.warning("secret_rejected", setting=self.setting, reason=_reason(error))
            return
        self.rejection = None
        if text != self._secret_value:
            self._secret_value = text
            _log.info("secret_replaced", setting=self.setting)


def find_secret(setting: str) -> FileSecret | None:
    """Find the file for the variable MUSTER_<NAME>: at MUSTER_<NAME>_FILE, or else in the folder MUSTER_SECRETS_DIR.

    Raises SecretUnusable if the file cannot be read, or if both the variable and MUSTER_<NAME>_FILE are set.
    """
    named, folder = os.environ.get(f"{setting}_FILE"), os.environ.get(FOLDER)
    if named:
        if setting in os.environ:
            raise SecretUnusable(f"{setting} and {setting}_FILE are both set: set one of them")
        return FileSecret(f"{setting}_FILE", Path(named))
    if folder and Path(folder, setting).exists():
        return FileSecret(setting, Path(folder, setting))
    return None


class SecretFiles(PydanticBaseSettingsSource):
    """Reads the secrets that are in files. Raises SecretUnusable."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The secret of a field, if it is in a file."""
        return find_secret(PREFIX + field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The secrets that are in files, by field."""
        fields = self.settings_cls.model_fields
        secrets = {name for name, field in fields.items() if field.annotation is SecretStr}
        found = {name: self.get_field_value(fields[name], name)[0] for name in secrets}
        return {name: secret for name, secret in found.items() if secret is not None}


def file_secrets(values: Mapping[str, object]) -> Iterator[tuple[str, FileSecret]]:
    """The values that are secrets in files, by name."""
    return ((name, value) for name, value in values.items() if isinstance(value, FileSecret))


def weakness(secret: str, shortest: int = SHORTEST) -> str | None:
    """Why production refuses a secret, if it does."""
    if not secret:
        return "production requires a value"
    if len(secret) < shortest:
        return f"production requires at least {shortest} characters"
    if len(set(secret)) < FEWEST_DIFFERENT or _EXAMPLE.fullmatch(secret):
        return "production requires a random secret, not a default or an example"
    return None


def address_weakness(dsn: str, *, allow_plaintext: bool) -> str | None:
    """Why production refuses an address of Postgres, if it does."""
    parts = urlsplit(dsn)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if (parts.hostname or options.get("host", "")).startswith("/"):
        return None  # traffic over a Unix socket does not leave the machine
    if options.get("sslmode") != "verify-full" and not allow_plaintext:
        return "production requires sslmode=verify-full, a Unix socket, or MUSTER_ALLOW_PLAINTEXT=true"
    if parts.password is None:
        return None if options.get("sslcert") else "production requires a password or a client certificate (sslcert)"
    weak = weakness(unquote(parts.password))
    return f"the password: {weak}" if weak else None


def _read(file: Path) -> str:
    text = file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("the file is empty")
    return text


def version_of(file: Path) -> tuple[int, ...] | None:
    """A value that changes whenever a file is written or replaced, also through a link; None if there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size


def _reason(error: Exception) -> str:
    """The reason, without anything that the error may quote."""
    if isinstance(error, OSError):
        return f"the file cannot be read ({error.strerror or type(error).__name__})"
    if isinstance(error, ValidationError):
        return explain(error)
    return "the file is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)


def explain(error: SecretUnusable | ValidationError) -> str:
    """The first fault in settings on one line, with the setting's name but without its value."""
    if isinstance(error, SecretUnusable):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    message = plain_rule(first)
    if not first["loc"]:
        return message  # a rule about several settings names them itself
    return f"{PREFIX}{'_'.join(str(part) for part in first['loc']).upper()}: {message}"
