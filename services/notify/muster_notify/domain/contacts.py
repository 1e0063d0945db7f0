"""The people and roles that e-mails go to."""

from dataclasses import dataclass

# The role of the program's operators, who are no agency's contacts.
OPERATORS = "operators"

# The role of those who hold a seat. A rule for it reaches the one person of whom the event speaks.
PERSON = "person"


# A person's agency and reference.
Person = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Contact:
    """Someone who can receive e-mail."""

    name: str | None
    email: str
