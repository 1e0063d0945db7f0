"""Sends e-mails over SMTP."""

import asyncio
import json
import re
from datetime import datetime

from aiosmtplib import SMTP, SMTPDataError, SMTPException, SMTPRecipientsRefused, SMTPResponseException

from muster_notify.domain.contacts import OPERATORS, PERSON, Contact
from muster_notify.domain.deliveries import Delivery, Outcome, Verdict
from muster_notify.domain.messages import Unwritable, messages, write
from muster_notify.domain.rules import Rule, rules
from muster_notify.repository import directory
from muster_notify.settings import NotifySettings
from muster_runtime.database.transactions import Database

SMTP_TIMEOUT_SECONDS = 30

_ADDRESS = re.compile(r"<?[^\s<>]+@[^\s<>]+>?")


class EmailSender:
    """Writes and sends a delivery's e-mail. One connection serves a burst; a lost connection is replaced."""

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings
        self._smtp: SMTP | None = None
        self._sending = asyncio.Lock()

    async def send(self, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        """Attempt a delivery once. It looks up the recipients, so that an erased person gets nothing."""
        rule = rules().named(delivery.rule)
        recipients = await self._recipients(database, rule, delivery)
        if not recipients and rule.recipient == PERSON:
            return Outcome(Verdict.FAILED, "the person no longer has a seat")
        if not recipients:
            return Outcome(Verdict.RETRY, f"the agency has no {delivery.recipient}")
        event = json.loads(delivery.payload)
        try:
            email = write(
                messages()[rule.message],
                event["data"],
                delivery_id=delivery.id,
                sender=self._settings.smtp_from,
                recipients=recipients,
                date=now,
            )
        except Unwritable as error:
            return Outcome(Verdict.FAILED, str(error))
        async with self._sending:
            try:
                smtp = await self._connection()
            except (SMTPException, OSError) as error:
                return Outcome(Verdict.RETRY, f"no connection to the mail server: {_describe(error)}")
            try:
                refused, _ = await smtp.send_message(email)
            except (SMTPException, OSError, ValueError) as error:
                if not isinstance(error, SMTPResponseException | SMTPRecipientsRefused):
                    self._disconnect()
                return Outcome(Verdict.FAILED if _is_permanent(error) else Verdict.RETRY, _describe(error))
        return Outcome(Verdict.DELIVERED, f"{len(refused)} of {len(recipients)} refused" if refused else None)

    async def close(self) -> None:
        """Close the connection."""
        self._disconnect()

    async def _recipients(self, database: Database, rule: Rule, delivery: Delivery) -> list[Contact]:
        if rule.recipient == OPERATORS:
            return [Contact("Operators", self._settings.operators_email)]
        async with database.connection() as connection:
            if rule.recipient == PERSON:
                found = await directory.find_people(connection, [(delivery.agency_id, delivery.recipient)])
                return list(found.values())
            return await directory.list_contacts(connection, delivery.agency_id, delivery.recipient)

    async def _connection(self) -> SMTP:
        if self._smtp is not None and self._smtp.is_connected:
            return self._smtp
        self._disconnect()
        settings = self._settings
        smtp = SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username or None,
            password=settings.smtp_password.get_secret_value() or None,
            start_tls=settings.smtp_starttls,
            timeout=SMTP_TIMEOUT_SECONDS,
        )
        await smtp.connect()
        self._smtp = smtp
        return smtp

    def _disconnect(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()


def _is_permanent(error: Exception) -> bool:
    """Whether a retry cannot help: the server refused the message, or every recipient, permanently (RFC 5321, 4.2.1).

    A refused login or sender is a fault of our configuration, and is retried.
    """
    if isinstance(error, SMTPRecipientsRefused):
        return all(refusal.code >= 500 for refusal in error.recipients)
    return isinstance(error, ValueError) or (isinstance(error, SMTPDataError) and error.code >= 500)


def _describe(error: Exception) -> str:
    """The server's answer on one line, without the addresses that it may quote."""
    if isinstance(error, SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, SMTPResponseException):
        message = "".join(c if c.isprintable() else " " for c in error.message)
        return _ADDRESS.sub("<address>", f"answered {error.code} {message}")[:500]
    return type(error).__name__
