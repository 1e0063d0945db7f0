"""Text that people write."""

import unicodedata

# More than any field takes, also if four characters become one. Sorting the marks of a character, which composing does,
# takes time that grows with the square of their number.
_LONGEST = 1_200

# A person's reason for a decision has at least so many characters.
SHORTEST_REASON = 3


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC). What no field would take is cut: the rest is too long, too."""
    return unicodedata.normalize("NFC", text[:_LONGEST])


def count(number: int, one: str, many: str = "") -> str:
    """A number of things, such as `1 row` or `2,000 rows`; `many` is the plural, unless an s makes it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def names_address(text: str) -> bool:
    """Whether a text has an @, which an e-mail address has, also one that only looks different, such as a wide one."""
    return "@" in unicodedata.normalize("NFKC", text)


def check_reason(reason: str) -> str:
    """A person's reason for a decision, without spaces around it. Raises ValueError if it is too short or has an @."""
    reason = reason.strip()
    if len(reason) < SHORTEST_REASON:
        raise ValueError(f"must have at least {SHORTEST_REASON} characters")
    if names_address(reason):
        raise ValueError("must not contain @: a reason is kept for good, so it names no person")
    return reason
