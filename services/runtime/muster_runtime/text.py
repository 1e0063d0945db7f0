"""Text that people write."""

import unicodedata

# More than any field takes, also if four characters become one. Sorting the marks of a character, which composing does,
# takes time that grows with the square of their number.
_LONGEST = 1_200


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC). What no field would take is cut: the rest is too long, too."""
    return unicodedata.normalize("NFC", text[:_LONGEST])
