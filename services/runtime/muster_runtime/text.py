"""Checks and formats text that people write."""

import re
import unicodedata
from collections.abc import Sequence

# Longer than any field, even if four characters compose into one. Composing sorts the combining marks of a character,
# which takes time quadratic in their number.
_LONGEST = 1_200

# What may stand before the @ of an address without quotes (RFC 5322's dot-atom), and how long it may be (RFC 5321).
# Only ASCII: many mail servers do not support SMTPUTF8.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
LONGEST_LOCAL_PART = 64

# The minimum length of a person's reason for a decision.
SHORTEST_REASON = 3


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), cut at a length that no field accepts."""
    return unicodedata.normalize("NFC", text[:_LONGEST])


def count(number: int, one: str, many: str = "") -> str:
    """A number and a noun, such as `1 row` or `2,000 rows`; `many` is the plural if adding an s does not make it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def did_you_mean(nearest: Sequence[str]) -> str:
    """The end of a refusal that names the nearest known names; empty if there are none."""
    return f"; did you mean {' or '.join(nearest)}?" if nearest else ""


def names_address(text: str) -> bool:
    """Whether a text contains an @, as an e-mail address does, or a look-alike such as a full-width one."""
    return "@" in unicodedata.normalize("NFKC", text)


def check_mailable(field: str, address: str) -> None:
    """Raise InvalidInput if no e-mail can be sent to an address because of what is before its @."""
    local_part = address.rpartition("@")[0]
    if len(local_part) > LONGEST_LOCAL_PART or not _LOCAL_PART.fullmatch(local_part):
        # Imported late: it loads the client of Postgres, which most of the operator's commands do not need.
        from muster_runtime.errors import InvalidInput

        raise InvalidInput(
            field,
            address,
            f"must have 1 to {LONGEST_LOCAL_PART} characters before the @: letters from a to z, digits, the signs "
            "!#$%&'*+-/=?^_`{|}~, and single dots between them",
        )


def check_reason(reason: str) -> str:
    """A person's reason for a decision, stripped of spaces. Raises ValueError if it is too short or contains an @."""
    reason = reason.strip()
    if len(reason) < SHORTEST_REASON:
        raise ValueError(f"must have at least {SHORTEST_REASON} characters")
    if names_address(reason):
        raise ValueError("must not contain @: a reason is kept permanently, so it must not name a person")
    return reason
