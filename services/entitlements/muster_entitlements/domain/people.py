"""People: their normalized addresses, and the subject references that all other code uses."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from muster_runtime.errors import InvalidInput
from muster_runtime.text import LONGEST_LOCAL_PART, check_mailable, composed

# RFC 5321, 4.5.3.1.
LONGEST_ADDRESS = 254
LONGEST_NAME = 200

# RFC 5322's dot-atom. Nobody gets a seat under letters beyond ASCII anymore, but some may still hold one.
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+(gov|mil)")
_SUBJECT_REF = re.compile(r"sub_[0-9a-f]{32}")

_SUBJECT_RULE = "must be an address in a .gov or .mil domain, or a subject reference: sub_ and 32 hexadecimal digits"


@dataclass(frozen=True, slots=True)
class Person:
    """A person, under their subject reference."""

    subject_ref: str
    email: str
    name: str | None


class Directory:
    """Turns addresses into persons, under references that only the holder of the key can compute."""

    def __init__(self, key: str) -> None:
        # HMAC (RFC 2104), but its two key blocks are hashed only once: a seat file needs it for each row.
        block = key.encode() if len(key.encode()) <= 64 else hashlib.sha256(key.encode()).digest()
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block.ljust(64, b"\0")))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block.ljust(64, b"\0")))

    @property
    def fingerprint(self) -> str:
        """Identifies this key without revealing it: 64 bits of a reference that no person has."""
        return self.reference("", "").removeprefix("sub_")[:16]

    def person(self, agency_id: str, email: str, name: str | None) -> Person:
        """The person who gets a seat of an agency. Raises InvalidInput for an address or name that breaks a rule."""
        address = mailable_email(email)
        return Person(self.reference(agency_id, address), address, normalize_name(name))

    def subject_ref(self, agency_id: str, subject: str) -> str:
        """The reference of a subject that is given as a reference or an address. Raises InvalidInput."""
        if is_reference(subject.strip()):
            return subject.strip()
        try:
            address = normalize_email(subject)
        except InvalidInput:
            raise InvalidInput("subject", subject, _SUBJECT_RULE) from None
        return self.reference(agency_id, address)

    def reference(self, agency_id: str, address: str) -> str:
        """The reference of a normalized address."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(f"{agency_id}|{address}".encode())
        outer.update(inner.digest())
        return f"sub_{outer.hexdigest()[:32]}"


def is_reference(subject: str) -> bool:
    """Whether a subject is the reference of a person."""
    return _SUBJECT_REF.fullmatch(subject) is not None


def mailable_email(value: str) -> str:
    """The normal form of the address of a person who gets a seat.

    Raises InvalidInput, also for an address to which no e-mail can be sent.
    """
    check_mailable("email", value.strip())
    return normalize_email(value)


def normalize_email(value: str) -> str:
    """The normal form of an address: trimmed, case folded, Unicode NFC.

    Raises InvalidInput for a value that is not an address, or not in a .gov or .mil domain.
    """
    address = composed(composed(value.strip()).casefold())
    local_part, at, domain = address.rpartition("@")
    if not at or len(address) > LONGEST_ADDRESS or len(local_part) > LONGEST_LOCAL_PART:
        raise InvalidInput(
            "email", value, "must be an address local@domain of at most 254 characters, at most 64 of them before the @"
        )
    if not _LOCAL_PART.fullmatch(local_part):
        raise InvalidInput("email", value, "must have a dot-atom (RFC 5322) before the @")
    if not _is_government(domain):
        raise InvalidInput("email", value, "must be in a .gov or .mil domain")
    return address


@lru_cache(maxsize=4096)
def _is_government(domain: str) -> bool:
    return _DOMAIN.fullmatch(domain) is not None


def normalize_name(value: str | None) -> str | None:
    """A name in Unicode NFC with single spaces; None if it is empty. Raises InvalidInput."""
    name = composed(" ".join((value or "").split()))
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput("name", value, f"must be at most {LONGEST_NAME} characters without control characters")
    return name or None
