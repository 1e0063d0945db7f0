"""The copy itself: about 60 bytes per person, so that millions fit into a process.

Each person has a row of numbers. Apart from the reference, the revision, and when the seat's trials began, thousands of
people have the same record. That common part is stored once for all of them, and parsed once.
"""

import itertools
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from muster_contracts import Decoded, MalformedRecord, NewerMajor, decode, read_headers
from muster_contracts.entitlements import AgencyAccess, SubjectAccess, SubjectAccessErased
from muster_entitlements_client.answers import NOTHING, Answer, Own, Terms, Verdict, to_further, to_grants, to_uses
from muster_entitlements_client.people import People

_ERASED = SubjectAccessErased.event_type

# A person's record as Muster writes it. The reference, the revision, and the instant are the person's own; everything
# else is the same for thousands of people. A record that is written differently is parsed in full.
_SUBJECT_TYPE = ("ce_type", SubjectAccess.event_type.encode())
_WRITTEN = re.compile(
    rb"""(\{"agency_id":"[^"\\]*"),"subject_ref":"([^"\\]*)","revision":([1-9][0-9]*)"""
    rb"""(,"generation":[0-9]+,"seat":"[^"\\]*"),"trial_began_at":"""
    rb"""(?:null|"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?Z)")(,.*)""",
    re.DOTALL,
)

# Instants are microseconds since the epoch; _NEVER is before all of them.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NEVER = -(1 << 63)

_SUBJECT_REF = re.compile(r"sub_[0-9a-f]{32}")

_NOBODY = Answer(Verdict.REFUSED, "no_seat", None, 0)
_UNKNOWN = Answer(Verdict.REFUSED, "unknown", None, 0)


class Unreadable(Exception):
    """A record that this version of the client cannot read: continuing would leave the copy wrong."""


class NotReady(Exception):
    """The copy is not complete yet, or no longer complete because the topic was recreated."""


class _Agency:
    """What is known of an agency and shared by all its people.

    `terms` is None until the agency's own record arrives.
    """

    __slots__ = ("agency_id", "people", "revision", "terms")

    def __init__(self, agency_id: str) -> None:
        self.agency_id = agency_id
        self.revision = 0
        self.people = 0
        self.terms: Terms | None = None


class _Standing:
    """The common part of some people's records: `written` is its encoded form, `people` how many people share it."""

    __slots__ = ("_features", "_own", "agency", "generation", "people", "seat", "written")

    def __init__(self, agency: _Agency, access: SubjectAccess, written: bytes) -> None:
        self._own = Own(to_grants(access.grants), to_uses(access.quotas), to_further(access.further_uses))
        self._features = {each[0] for part in self._own for each in part}
        self.agency = agency
        self.generation = access.generation
        self.seat = str(access.seat)
        self.written = written
        self.people = 0

    def own(self, feature: str | None) -> Own:
        """What these people have of a feature besides their seats."""
        return self._own if feature in self._features else NOTHING


class AccessCopy:
    """The latest record of each agency and person. Not thread-safe."""

    def __init__(self) -> None:
        self._agencies: dict[str, _Agency] = {}
        self._people = People()  # the number of each person's standing, and when their trials began
        self._standings: dict[int, _Standing] = {}
        self._numbers: dict[bytes, int] = {}
        self._next = itertools.count()

    def __len__(self) -> int:
        """How many people have a seat of any state."""
        return len(self._people)

    @property
    def knows_agencies(self) -> bool:
        """Whether any agency's record has arrived. A topic without one was recreated and is not filled yet."""
        return any(agency.terms is not None for agency in self._agencies.values())

    def agency_of(self, subject_ref: str) -> str | None:
        """The agency of a person; None if they have no seat."""
        row = self._people.find(subject_ref)
        return None if row is None else self._standings[row[0]].agency.agency_id

    def has_people_of(self, agency_id: str) -> bool:
        """Whether anybody in an agency has a seat of any state. If not, its people may not be published again yet."""
        agency = self._agencies.get(agency_id)
        return agency is not None and agency.people > 0

    def check(self, subject_ref: str, feature: str | None, now: datetime, agency_id: str | None = None) -> Answer:
        """Whether a person may use a feature at an instant; without a feature, whether they have a usable seat.

        Without the agency, a person without a seat gets the answer `no_seat`, whatever their agency's state. Raises
        NotReady if there are records of an agency's people but not its own, and ValueError for a subject that is not a
        reference, such as an e-mail address.
        """
        row = self._people.find(subject_ref) if isinstance(subject_ref, str) else None
        if row is None:
            require_reference(subject_ref)  # only now: it would slow down the check of a person who is found
        else:
            standing = self._standings[row[0]]
            agency = standing.agency
            if agency_id is None or agency.agency_id == agency_id:
                if agency.terms is None:
                    raise NotReady(f"the record of {agency.agency_id} has not arrived yet")
                state = standing.seat if standing.generation == agency.terms.generation else None
                began_at = None
                if row[1] != _NEVER and feature in agency.terms.trials:
                    began_at = _EPOCH + timedelta(microseconds=row[1])
                return agency.terms.answer(state, feature, now, agency.revision, standing.own(feature), began_at)
        if agency_id is None:
            return _NOBODY
        known = self._agencies.get(agency_id)
        if known is None:
            return _UNKNOWN
        if known.terms is None:
            raise NotReady(f"the record of {agency_id} has not arrived yet")
        return known.terms.answer(None, feature, now, known.revision)

    def take(self, headers: Sequence[tuple[str, bytes]], key: bytes | None, value: bytes | None) -> None:
        """Apply the topic's next record. Raises Unreadable."""
        if not key:
            raise Unreadable("a record of the snapshot topic has no key")
        try:
            if value is None and (envelope := read_headers(headers)).type == _ERASED:
                self._erase(key.decode(), envelope.agency_id)
                return
            if value is None or _SUBJECT_TYPE not in headers or not self._take_known(headers, key, value):
                self._take(headers, key, value)
        except (MalformedRecord, ValueError) as error:
            raise Unreadable(str(error)) from None

    def _take_known(self, headers: Sequence[tuple[str, bytes]], key: bytes, value: bytes) -> bool:
        """Apply a person's record, if its common part is already known from somebody else."""
        written = _WRITTEN.fullmatch(value)
        number = None if written is None else self._numbers.get(_alike(written))
        if written is None or number is None or written[2] != key:
            return False
        if ("ce_partitionkey", self._standings[number].agency.agency_id.encode()) not in headers:
            return False
        began_at = None if written[5] is None else datetime.fromisoformat(written[5].decode())
        self._hold(key.decode(), number, int(written[3]), began_at)
        return True

    def _take(self, headers: Sequence[tuple[str, bytes]], key: bytes, value: bytes | None) -> None:
        decoded = decode(headers, value, key)
        if isinstance(decoded, NewerMajor):
            raise Unreadable(f"{decoded.envelope.type} needs a newer muster-entitlements-client")
        if not isinstance(decoded, Decoded):
            return
        event = decoded.event
        if isinstance(event, AgencyAccess):
            agency = self._agency(event.agency_id)
            agency.terms = Terms(event)
            agency.revision = max(agency.revision, event.revision)
        elif isinstance(event, SubjectAccess):
            if event.subject_ref.encode() != key:
                raise Unreadable("subject_ref differs from the record's key")
            self._hold(event.subject_ref, self._number(event, value or b""), event.revision, event.trial_began_at)

    def _number(self, access: SubjectAccess, value: bytes) -> int:
        """The number of a record's common part."""
        written = _WRITTEN.fullmatch(value)
        alike = value if written is None else _alike(written)
        number = self._numbers.get(alike)
        if number is None:
            number = self._numbers[alike] = next(self._next)
            self._standings[number] = _Standing(self._agency(access.agency_id), access, alike)
        return number

    def _hold(self, subject_ref: str, number: int, revision: int, began_at: datetime | None) -> None:
        instant = _NEVER if began_at is None else (began_at - _EPOCH) // _MICROSECOND
        standing = self._standings[number]
        standing.people += 1
        standing.agency.people += 1
        if (before := self._people.put(subject_ref, number, instant)) is not None:
            self._leave(before[0])
        if revision > standing.agency.revision:
            standing.agency.revision = revision

    def _erase(self, subject_ref: str, agency_id: str) -> None:
        """Forget a person in this agency. Another agency's tombstone does not affect them."""
        if self.agency_of(subject_ref) == agency_id and (before := self._people.remove(subject_ref)) is not None:
            self._leave(before[0])

    def _leave(self, number: int) -> None:
        """Remove one person from a standing; delete the standing with the last one."""
        standing = self._standings[number]
        standing.people -= 1
        standing.agency.people -= 1
        if not standing.people:
            del self._standings[number], self._numbers[standing.written]

    def _agency(self, agency_id: str) -> _Agency:
        return self._agencies.setdefault(agency_id, _Agency(agency_id))


def _alike(written: re.Match[bytes]) -> bytes:
    """The common part of a record."""
    return b"".join(written.group(1, 4, 6))


def require_reference(subject: object) -> None:
    """Raise ValueError for a subject that is not a reference, such as an e-mail address."""
    if not isinstance(subject, str) or not _SUBJECT_REF.fullmatch(subject):
        raise ValueError("subject_ref must be sub_ and 32 hexadecimal digits: a copy knows references only")
