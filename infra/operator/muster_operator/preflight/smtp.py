"""Checks that the mail server accepts a session like notify's."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Protocol, cast

from pydantic import SecretStr

from muster_operator.preflight.findings import Check, Finding
from muster_operator.preflight.subjects import Subject

CONNECT_SECONDS = 5.0


class MailSettings(Protocol):
    """The mail server's fields of notify's settings. This command does not depend on notify's package."""

    smtp_host: str
    smtp_port: int
    smtp_username: str
    smtp_password: SecretStr
    smtp_starttls: bool


async def check_smtp(subject: Subject, environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Check the mail server, if one is set and notify's package, which reads its settings, is installed."""
    if "MUSTER_SMTP_HOST" not in environment or not hasattr(subject.settings, "smtp_host"):
        return
    check = Check(subject.service, "smtp")
    settings = cast("MailSettings", subject.settings)
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    if not (settings.smtp_username + settings.smtp_password.get_secret_value()).isascii():  # notify's client could
        found = "not checked: this check cannot send a MUSTER_SMTP_USERNAME or _PASSWORD that is not ASCII"
        yield check.warning(found, "check that notify delivers its e-mails, or use ASCII")
        return
    try:
        await asyncio.to_thread(_log_in, settings)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        found = f"{where} does not accept a session: {error or type(error).__name__}"
        yield check.failed(found, "correct MUSTER_SMTP_HOST, _PORT, _STARTTLS, _USERNAME, or _PASSWORD, or the network")
        return
    yield check.ok(f"{where} accepts a session")


def _log_in(settings: MailSettings) -> None:
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=CONNECT_SECONDS) as server:
        if settings.smtp_starttls:
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_username:
            server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
        server.noop()
