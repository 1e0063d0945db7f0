"""The people and roles that e-mails go to."""

from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address

# The role of the program's operators, who are not any agency's contacts.
OPERATORS = "operators"

# The role of seat holders. A rule with this role reaches the one person that the event is about.
PERSON = "person"


# A person's agency and reference.
Person = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Contact:
    """Someone who can receive e-mail."""

    name: str | None
    email: str


def parse_address(email: str, name: str = "") -> Address | None:
    """A header's address; None if it is not valid."""
    try:
        return Address(name, addr_spec=email)
    except (ValueError, MessageError, IndexError):  # the last one where the text ends too early
        return None
