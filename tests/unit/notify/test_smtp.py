"""A mail server's refusal is stored as its codes, and never as its words, which may name a person."""

import pytest
from aiosmtplib import (
    SMTPAuthenticationError,
    SMTPConnectResponseError,
    SMTPDataError,
    SMTPException,
    SMTPHeloError,
    SMTPReadTimeoutError,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from muster_notify.adapters.smtp import describe

ADA = "ada.example@nasa.gov"

ANSWERS = [
    "5.1.1 ada.example... User unknown",  # sendmail, of a local user
    "5.1.1 User ada.example not found",
    "5.1.1 ada.example=nasa.gov bounced",  # VERP, SRS
    "5.1.1 mailbox of Ada Example is full",
    "5.1.1 ada.example (at) nasa.gov is unknown",
    '5.1.1 "ada.example"@ nasa.gov unknown',
    "5.1.1\nada.example on a line of its own",
    "5.1.1 https://mail.example/unknown?user=ada.example%40nasa.gov",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_of_a_mail_server_leaves_a_name_behind(answer: str) -> None:
    refused = SMTPRecipientsRefused([SMTPRecipientRefused(550, answer, ADA)])
    assert describe(refused) == "the recipient was refused: 550 5.1.1"


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (SMTPConnectResponseError(554, "5.7.1 go away, ada"), "the connection was refused: 554 5.7.1"),
        (SMTPHeloError(501, "ada?"), "the greeting was refused: 501"),
        (SMTPAuthenticationError(535, "5.7.8 not ada's"), "the login was refused: 535 5.7.8"),
        (SMTPSenderRefused(550, "5.7.1 ada", ADA), "the sender was refused: 550 5.7.1"),
        (SMTPDataError(451, "4.3.0"), "the message was refused: 451 4.3.0"),
        (SMTPDataError(554, "5.7.1.ada"), "the message was refused: 554"),
        (SMTPDataError(554, "9.1.1 ada"), "the message was refused: 554"),
        (SMTPDataError(554, "ada 5.1.1"), "the message was refused: 554"),
        (SMTPDataError(554, "5.7.1234 ada"), "the message was refused: 554"),
        (SMTPResponseException(421, "4.4.2 ada"), "a command was refused: 421 4.4.2"),
        (SMTPReadTimeoutError("ada"), "SMTPReadTimeoutError"),
        (SMTPException("ada"), "SMTPException"),
        (ConnectionResetError("ada"), "ConnectionResetError"),
    ],
)
def test_a_refusal_is_described_by_its_step_and_its_codes(error: Exception, kept: str) -> None:
    assert describe(error) == kept
