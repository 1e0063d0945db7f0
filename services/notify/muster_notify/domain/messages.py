"""Writes e-mails from the texts in messages.toml, in a plain and an HTML layout."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from pydantic import BaseModel, ConfigDict

from muster_notify.domain.contacts import Contact, parse_address


class Unwritable(Exception):
    """An e-mail cannot be written from this data. The message omits the data, which may be personal."""


class Message(BaseModel):
    """The text of an e-mail: each string is a Jinja template."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    paragraphs: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


@cache
def messages() -> Mapping[str, Message]:
    """The package's messages by name."""
    texts = tomllib.loads(files(__package__).joinpath("messages.toml").read_text("utf-8"))
    return {name: Message.model_validate(text) for name, text in texts.items()}


def write(
    message: Message,
    data: Mapping[str, Any],
    *,
    delivery_id: str,
    sender: str,
    recipients: Sequence[Contact],
    date: datetime,
) -> EmailMessage:
    """An e-mail about an event's data. Repeated attempts have the same Message-ID, derived from the delivery.

    It leaves out recipients whose address is not valid. Raises Unwritable if there is no other one, or a header
    contains a line break.
    """
    texts = {
        "heading": _render(message.subject, data),
        "paragraphs": [_render(paragraph, data) for paragraph in message.paragraphs],
        "facts": [(label, _render(value, data)) for label, value in message.facts],
        "name": recipients[0].name if len(recipients) == 1 else None,
        "delivery_id": delivery_id,
    }
    email = EmailMessage()
    addresses = [parse_address(contact.email, contact.name or "") for contact in recipients]
    if not any(addresses):
        raise Unwritable("the recipients' addresses are not valid")
    try:
        email["From"] = Address("Muster", addr_spec=sender)
        email["To"] = [address for address in addresses if address]
        email["Subject"] = texts["heading"]
    except (ValueError, MessageError) as error:
        raise Unwritable("a header is not valid") from error
    email["Date"] = format_datetime(date)
    email["Message-ID"] = f"<{delivery_id}@{sender.rpartition('@')[2]}>"
    email["Auto-Submitted"] = "auto-generated"  # RFC 3834: suppresses out-of-office replies
    email["Content-Language"] = "en"
    email.set_content(_layouts().get_template("message.txt.j2").render(texts))
    email.add_alternative(_layouts().get_template("message.html.j2").render(texts), subtype="html")
    return email


def _render(text: str, data: Mapping[str, Any]) -> str:
    return _template(text).render(data)


@cache
def _template(text: str) -> Template:
    return _texts().from_string(text)


@cache
def _texts() -> Environment:
    """The environment for strings: plain text, which the HTML layout escapes as a whole."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701
    environment.filters.update(instant=_instant, money=_money, words=_words)
    return environment


@cache
def _layouts() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _instant(value: str) -> str:
    at = datetime.fromisoformat(value).astimezone(UTC)
    return f"{at:%B} {at.day}, {at:%Y, %H:%M} UTC"


def _money(value: Mapping[str, Any]) -> str:
    units, cents = divmod(value["amount_minor"], 100)
    symbol = "$" if value["currency"] == "USD" else f"{value['currency']} "
    return f"{symbol}{units:,}.{cents:02}"


def _words(value: str) -> str:
    words = value.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]
