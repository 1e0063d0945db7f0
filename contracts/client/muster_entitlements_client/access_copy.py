"""The copy itself: some 90 bytes a person, so that millions of them fit into a process.

A person is a number, their reference's own 128 bits, and points to what is the same for thousands of others: the
agency, the generation of the seat, its state, grants, and used quotas. Only when the trials of a seat began is its own.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from muster_contracts import Decoded, MalformedRecord, NewerMajor, decode, read_headers
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_entitlements_client.answers import NOTHING, Answer, Own, Terms, Verdict, to_further, to_grants, to_uses

_REFERENCE = re.compile(r"sub_[0-9a-f]{32}")
_ERASED = SubjectAccessErased.event_type

# Many records differ by their person alone: how many of those forms are kept, and of what people may have alike.
_FORMS = 4_096
_ALIKE = 65_536

_NOBODY = Answer(Verdict.REFUSED, "no_seat", None, 0)
_UNKNOWN = Answer(Verdict.REFUSED, "unknown", None, 0)


class Unreadable(Exception):
    """A record that this version of the client cannot read: going on would leave the copy wrong."""


class _Agency:
    """What is known of an agency, which all its people share. `terms` is None until its own record has come."""

    __slots__ = ("agency_id", "revision", "terms")

    def __init__(self, agency_id: str) -> None:
        self.agency_id = agency_id
        self.revision = 0
        self.terms: Terms | None = None


# An agency, a seat's generation and state, and what the person has beside it.
_Holding = tuple[_Agency, int, str, Own]


class AccessCopy:
    """The latest record of each agency and person. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._agencies: dict[str, _Agency] = {}
        self._holdings: dict[int | str, _Holding] = {}
        self._begun: dict[int | str, datetime] = {}
        self._alike: dict[_Holding, _Holding] = {}
        self._forms: dict[tuple[bytes, bytes], tuple[_Holding, int]] = {}

    def __len__(self) -> int:
        """How many people have a seat of any state."""
        return len(self._holdings)

    def agency_of(self, subject_ref: str) -> str | None:
        """The agency of a person; None if they have no seat."""
        holding = self._holdings.get(_number(subject_ref))
        return None if holding is None else holding[0].agency_id

    def check(self, subject_ref: str, feature: str | None, now: datetime, agency_id: str | None = None) -> Answer:
        """Whether a person may use a feature at an instant; without a feature, whether they have a usable seat.

        Without the agency, a person without a seat is answered `no_seat`, whatever their agency's state is.
        """
        number = _number(subject_ref)
        holding = self._holdings.get(number)
        if holding is not None and (agency_id is None or holding[0].agency_id == agency_id):
            agency, generation, seat, own = holding
            if agency.terms is None:
                return _UNKNOWN
            state = seat if generation == agency.terms.generation else None
            return agency.terms.answer(state, feature, now, agency.revision, own, self._begun.get(number))
        if agency_id is None:
            return _NOBODY
        known = self._agencies.get(agency_id)
        if known is None or known.terms is None:
            return _UNKNOWN
        return known.terms.answer(None, feature, now, known.revision)

    def take(self, headers: Iterable[tuple[str, bytes]], key: bytes | None, value: bytes | None) -> None:
        """Take the next record of the topic. Raises Unreadable."""
        if not key:
            raise Unreadable("a record of the snapshot topic has no key")
        if value is not None:
            before, found, after = value.partition(key)
            if found and (form := self._forms.get((before, after))) is not None:
                holding, revision = form
                self._hold(_number(key.decode()), holding, revision, None)
                return
        try:
            if value is None and read_headers(headers := tuple(headers)).type == _ERASED:
                number = _number(key.decode())
                self._holdings.pop(number, None)
                self._begun.pop(number, None)
                return
            decoded = decode(headers, value, key)
        except (MalformedRecord, UnicodeDecodeError) as error:
            raise Unreadable(str(error)) from None
        if isinstance(decoded, NewerMajor):
            raise Unreadable(f"{decoded.envelope.type} needs a newer muster-entitlements-client")
        if isinstance(decoded, Decoded):
            self._take(decoded.event, key, value or b"")

    def _take(self, event: object, key: bytes, value: bytes) -> None:
        if isinstance(event, AgencyAccess):
            agency = self._agency(event.agency_id)
            agency.terms = Terms(event)
            agency.revision = max(agency.revision, event.revision)
        elif isinstance(event, SubjectAccess):
            if event.subject_ref.encode() != key:
                raise Unreadable("subject_ref differs from the record's key")
            own = Own(to_grants(event.grants), to_uses(event.quotas), to_further(event.further_uses))
            own = own if any(own) else NOTHING
            new = (self._agency(event.agency_id), event.generation, str(event.seat), own)
            if len(self._alike) >= _ALIKE:
                self._alike.clear()
            holding = self._alike.setdefault(new, new)
            self._hold(_number(event.subject_ref), holding, event.revision, event.trial_began_at)
            if value.count(key) == 1 and event.trial_began_at is None:
                if len(self._forms) >= _FORMS:
                    self._forms.clear()
                before, _, after = value.partition(key)
                self._forms[before, after] = (holding, event.revision)

    def _hold(self, number: int | str, holding: _Holding, revision: int, began_at: datetime | None) -> None:
        self._holdings[number] = holding
        if began_at is not None:
            self._begun[number] = began_at
        else:
            self._begun.pop(number, None)
        if revision > holding[0].revision:
            holding[0].revision = revision

    def _agency(self, agency_id: str) -> _Agency:
        return self._agencies.setdefault(agency_id, _Agency(agency_id))


def _number(subject_ref: str) -> int | str:
    """A reference as a number, which takes less; what has another form stays as it is."""
    return int(subject_ref[4:], 16) if _REFERENCE.fullmatch(subject_ref) else subject_ref
