"""The people and roles that e-mails go to."""

from dataclasses import dataclass

# The role of the program's operators, who are no agency's contacts.
OPERATORS = "operators"

# The role of those who hold a seat; no rule sends e-mails to them yet.
PERSON = "person"


@dataclass(frozen=True, slots=True)
class Contact:
    """Someone who can receive e-mail."""

    name: str | None
    email: str
