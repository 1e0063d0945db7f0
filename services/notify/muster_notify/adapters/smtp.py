"""Sends e-mails over SMTP."""

import asyncio
import json
import re
from datetime import datetime

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectResponseError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from muster_notify.domain.contacts import OPERATORS, PERSON, Contact
from muster_notify.domain.deliveries import Delivery, Lane, Outcome, Verdict
from muster_notify.domain.messages import Unwritable, messages, write
from muster_notify.domain.rules import Rule, rules
from muster_notify.repository import directory
from muster_notify.settings import NotifySettings
from muster_runtime.database.transactions import Database

SMTP_TIMEOUT_SECONDS = 30

# The enhanced status code at the start of a response (RFC 3463).
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)")

# Of those, what concerns us and not the recipient: security or policy (X.7), and the sender's address (X.1.7, X.1.8).
_OURS = re.compile(r"5\.(7\.\d{1,3}|1\.[78])(?=\s|$)")

# After so many failed attempts, in about 32 hours, such a refusal is final: it may be about this message, and the next
# one waits behind it.
ATTEMPTS_WHEN_REFUSED = 7

_REFUSED = {
    SMTPConnectResponseError: "the connection",
    SMTPHeloError: "the greeting",
    SMTPAuthenticationError: "the login",
    SMTPSenderRefused: "the sender",
    SMTPRecipientRefused: "the recipient",
    SMTPDataError: "the message",
}


class EmailSender:
    """Writes and sends a delivery's e-mail. One connection is used for a burst; a lost connection is replaced."""

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings
        self._smtp: SMTP | None = None
        self._sending = asyncio.Lock()

    async def send(self, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        """Attempt a delivery once.

        Looks up the recipients right before sending, so that an erased person gets nothing.
        """
        async with self._sending:
            try:
                smtp = await self._connection()
            except (SMTPException, OSError) as error:
                return Outcome(Verdict.RETRY, f"no connection to the mail server: {describe(error)}")
            return await self._send(smtp, database, delivery, now)

    async def _send(self, smtp: SMTP, database: Database, delivery: Delivery, now: datetime) -> Outcome:
        rule = rules().named(delivery.rule)
        data = json.loads(delivery.payload)["data"]
        if rule.is_over(data, now):
            return Outcome(Verdict.FAILED, f"too late: its {rule.until} is past")
        recipients = await self._recipients(database, rule, delivery)
        if not recipients and rule.recipient == PERSON:
            return Outcome(Verdict.FAILED, "the person no longer has a seat")
        if not recipients:
            return Outcome(Verdict.RETRY, f"the agency has no {delivery.recipient}", without_role=True)
        try:
            email = write(
                messages()[rule.message],
                data,
                delivery_id=delivery.id,
                sender=self._settings.smtp_from,
                recipients=recipients,
                date=now,
            )
        except Unwritable as error:
            return Outcome(Verdict.FAILED, str(error))
        try:
            refused, _ = await smtp.send_message(email)
        except asyncio.CancelledError:
            self._disconnect()  # in the middle of the message
            raise
        except (SMTPException, OSError, ValueError) as error:
            if not isinstance(error, SMTPResponseException | SMTPRecipientsRefused):
                self._disconnect()
            is_final = _is_permanent(error, of_us=delivery.round_attempts >= ATTEMPTS_WHEN_REFUSED)
            return Outcome(Verdict.FAILED if is_final else Verdict.RETRY, describe(error))
        missed = len(recipients) - len(email["To"].addresses) + len(refused)
        return Outcome(Verdict.DELIVERED, f"{missed} of {len(recipients)} not reached" if missed else None)

    async def settle(self, lane: Lane) -> None:
        """Do nothing: an attempt leaves nothing running."""

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


def _is_permanent(error: Exception, *, of_us: bool) -> bool:
    """Whether a retry cannot help: the server permanently refused the message, or every recipient (RFC 5321, 4.2.1).

    A refused login, client, or sender is an error in our configuration, and is retried. Many servers refuse the client
    and the sender only in their answer to a recipient or to the message; that is permanent too with `of_us`.
    """
    if isinstance(error, SMTPRecipientsRefused):
        return all(_is_permanent(refusal, of_us=of_us) for refusal in error.recipients)
    if isinstance(error, SMTPRecipientRefused | SMTPDataError):
        return error.code >= 500 and (of_us or not _OURS.match(error.message))
    return isinstance(error, ValueError)


def describe(error: Exception) -> str:
    """What was refused, with the response's codes; never its text, which may contain a person's name or address."""
    if isinstance(error, SMTPRecipientsRefused):
        error = error.recipients[0]
    if not isinstance(error, SMTPResponseException):
        return type(error).__name__
    enhanced = _ENHANCED.match(error.message)
    codes = f"{error.code} {enhanced[0]}" if enhanced else f"{error.code}"
    return f"{_REFUSED.get(type(error), 'a command')} was refused: {codes}"
