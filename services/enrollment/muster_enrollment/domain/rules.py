"""The rules of enrollment: what a command may do, and how it changes an agency's standing."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files

from muster_contracts.calendar import one_year_after
from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain.facts import Acceptance, Authorization, Branch, Closure, Enrollment, Standing, State, Term
from muster_runtime.errors import Conflict, InvalidInput, NotFound, rfc3339
from muster_runtime.text import check_mailable

# Every authorization in the program is GSA's, for this product.
ISSUER = "GSA"
PRODUCT = "frontier-assistant"

# The valid versions of the data-use terms: business data is never used for training.
TERMS_VERSIONS = frozenset({"2025-08"})

# The day on which GSA announced the program; no enrollment starts before it.
PROGRAM_START = datetime(2025, 8, 6, tzinfo=UTC)

# Contacts and signers represent a federal agency, so their addresses are in a government domain.
_GOVERNMENT_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:gov|mil)")

# How long an agency's contacts are kept after it leaves, so that the final messages reach them.
CONTACT_RETENTION = timedelta(days=1)

# How long a signer is kept if no enrollment is live, so that one can be submitted.
SIGNER_RETENTION = timedelta(days=90)

# A later start is treated as a typing error.
LONGEST_LEAD = timedelta(days=366)


def settle(standing: Standing, at: datetime) -> Standing:
    """The standing after its conditions take effect at an instant; the only way to or from active.

    While facts are in doubt, a lapsed authorization suspends nobody: the next one may be among the lost commands.
    """
    enrollment = standing.live
    if enrollment is None:
        return standing
    met = not standing.missing(at)
    if enrollment.state is State.SUBMITTED and met:
        term = first_term(enrollment.requested_start, at)
        settled = replace(enrollment, state=State.ACTIVE, term=term)
    elif enrollment.state is State.ACTIVE and not met:
        reason = _loss(standing.authorizations, at)
        if standing.in_doubt and reason is SuspensionReason.ATU_LAPSED:
            return standing
        settled = replace(enrollment, state=State.SUSPENDED, suspension_reason=reason)
    elif enrollment.state is State.SUSPENDED and met:
        settled = replace(enrollment, state=State.ACTIVE, suspension_reason=None)
    else:
        return standing
    return replace(standing, enrollment=replace(settled, changed_at=at))


def boundaries(standing: Standing, until: datetime) -> list[datetime]:
    """The instants up to `until` at which an authorization started or stopped since the enrollment's last change.

    Settling at each in turn catches up with the time that has passed. What came before the last change stays as it is.
    """
    if standing.live is None:
        return []
    instants = {instant for a in standing.authorizations for instant in (a.valid_from, a.stops_at)}
    return sorted(instant for instant in instants if standing.live.changed_at <= instant <= until)


def check_address(field: str, email: str) -> None:
    """Raise InvalidInput unless e-mail can be sent to an address, and it is in a .gov or .mil domain."""
    check_mailable(field, email)
    if not _GOVERNMENT_DOMAIN.fullmatch(email.rpartition("@")[2].lower()):
        raise InvalidInput(field, email, "must be an address in a .gov or .mil domain")


def check_seats(seats: int, headcount: int | None, seats_per_head: float) -> None:
    """Raise InvalidInput for more seats than the headcount of the agency and its sub-agencies allows.

    If the agency's headcount is unknown (None), nothing limits the seats.
    """
    if headcount is None:
        return
    most = math.floor(headcount * seats_per_head)
    if seats > most:
        raise InvalidInput(
            "seats",
            seats,
            f"must be at most {most}: {seats_per_head:g} times the headcount of {headcount}, including sub-agencies",
        )


def check_time_zone(time_zone: str | None) -> None:
    """Raise InvalidInput unless the IANA database has the time zone."""
    if time_zone is not None and time_zone not in _time_zones():
        raise InvalidInput(
            "time_zone",
            time_zone,
            "must be a time zone of the IANA database, such as America/New_York, or null for UTC",
        )


def check_continued(agency_id: str, continues: Sequence[str], known: Collection[str]) -> None:
    """Raise InvalidInput unless an agency continues only other agencies, all of them in `known`.

    `known` are the register's agencies that the caller acts for: nobody may learn what another agency has left.
    """
    for place, continued in enumerate(continues):
        if continued == agency_id or continued not in known:
            raise InvalidInput(
                f"continues.{place}",
                continued,
                f"must be an agency of the register that your token acts for, and not {agency_id} itself",
            )


@cache
def _time_zones() -> frozenset[str]:
    # The package's, not the machine's: those differ between replicas, and one is localtime. Factory means no zone.
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split()) - {"Factory"}


def submit(
    standing: Standing,
    *,
    enrollment_id: str,
    seats: int,
    requested_start: datetime,
    contact_ref: str,
    now: datetime,
    time_zone: str | None = None,
    continues: tuple[str, ...] = (),
) -> Standing:
    """The standing with a new, submitted enrollment.

    Raises InvalidInput for an agency outside the executive branch, or a start before the program's or too far ahead,
    and Conflict if another enrollment is live.
    """
    if standing.agency.branch is not Branch.EXECUTIVE:
        raise InvalidInput(
            "agency_id", standing.agency.id, f"must be in the executive branch; this agency is {standing.agency.branch}"
        )
    if standing.live:
        raise Conflict(
            f"{standing.agency.id} already has a live enrollment, {standing.live.enrollment_id}, "
            f"which is {standing.live.state}; withdraw it before you submit another"
        )
    if requested_start < PROGRAM_START:
        raise InvalidInput(
            "starts_at",
            requested_start,
            f"must not be before the program's start, {rfc3339(PROGRAM_START)}",
        )
    if requested_start > now + LONGEST_LEAD:
        raise InvalidInput("starts_at", requested_start, f"must be at most {LONGEST_LEAD.days} days ahead")
    enrollment = Enrollment(
        enrollment_id=enrollment_id,
        agency_id=standing.agency.id,
        number=standing.enrollment.number + 1 if standing.enrollment else 1,
        state=State.SUBMITTED,
        seats=seats,
        requested_start=requested_start,
        contact_ref=contact_ref,
        submitted_at=now,
        changed_at=now,
        time_zone=time_zone,
        continues=continues,
    )
    return replace(standing, enrollment=enrollment)


def check_authorization(issuer: str, product: str, valid_from: datetime, valid_until: datetime, now: datetime) -> None:
    """Raise InvalidInput unless the authorization is one of the program's and has time left."""
    if issuer != ISSUER:
        raise InvalidInput("issuer", issuer, f"must be {ISSUER}, which issues all authorizations")
    if product != PRODUCT:
        raise InvalidInput("product", product, f"must be the program's product, {PRODUCT}")
    if valid_until <= valid_from:
        raise InvalidInput("valid_until", valid_until, "must be after valid_from")
    if valid_until <= now:
        raise InvalidInput("valid_until", valid_until, "must be in the future")


def authorize(standing: Standing, authorization: Authorization) -> Standing:
    """The standing with one more authorization. Raises Conflict if its number is already recorded."""
    if any(known.number == authorization.number for known in standing.authorizations):
        raise Conflict(f"authorization {authorization.number} of {standing.agency.id} is already recorded")
    return replace(standing, authorizations=(*standing.authorizations, authorization))


def revoke(standing: Standing, authorization_id: str, now: datetime) -> tuple[Standing, Authorization]:
    """The standing with an authorization revoked, and the revoked authorization.

    Raises NotFound, or Conflict if it has already stopped.
    """
    known = {a.authorization_id: a for a in standing.authorizations}
    if authorization_id not in known:
        raise NotFound(f"{standing.agency.id} has no authorization {authorization_id!r}")
    authorization = known[authorization_id]
    if authorization.stops_at <= now:
        raise Conflict(f"authorization {authorization.number} already stopped at {rfc3339(authorization.stops_at)}")
    revoked = replace(authorization, revoked_at=now)
    known[authorization_id] = revoked
    return replace(standing, authorizations=tuple(known.values())), revoked


def accept_terms(standing: Standing, acceptance: Acceptance) -> Standing:
    """The standing with one more acceptance.

    Raises InvalidInput for an unknown version, and Conflict for one that the agency has already accepted.
    """
    version = acceptance.terms_version
    if version not in TERMS_VERSIONS:
        raise InvalidInput("terms_version", version, f"must be one of {', '.join(sorted(TERMS_VERSIONS))}")
    if any(known.terms_version == version for known in standing.acceptances):
        raise Conflict(f"{standing.agency.id} has already accepted version {version}")
    return replace(standing, acceptances=(*standing.acceptances, acceptance))


def withdraw(standing: Standing, reason: str, now: datetime) -> Standing:
    """The standing with its live enrollment withdrawn. Raises Conflict if there is none."""
    if standing.live is None:
        raise Conflict(f"{standing.agency.id} has no live enrollment to withdraw")
    return replace(
        standing,
        enrollment=replace(
            standing.live,
            state=State.WITHDRAWN,
            changed_at=now,
            suspension_reason=None,
            closure=Closure(now, reason),
        ),
    )


def end_term(standing: Standing, enrollment_id: str | None, ended_at: datetime) -> Standing:
    """The standing after a term of an enrollment ended at `ended_at` and no other follows.

    A term of an earlier enrollment changes nothing. An event from before contracts 0.6.0 does not name the enrollment:
    its term belongs to an earlier one if it ends before the live enrollment's first term.
    """
    enrollment = standing.live
    if enrollment is None or enrollment.term is None:
        return standing
    earlier = ended_at < enrollment.term.ends_at if enrollment_id is None else enrollment_id != enrollment.enrollment_id
    if earlier:
        return standing
    return replace(
        standing,
        enrollment=replace(
            enrollment,
            state=State.ENDED,
            changed_at=ended_at,
            suspension_reason=None,
            closure=Closure(ended_at, "term_completed"),
        ),
    )


def first_term(requested_start: datetime, activated_at: datetime) -> Term:
    """A calendar year from the requested start, or from the activation if that is later."""
    starts_at = max(requested_start, activated_at)
    return Term(starts_at, one_year_after(starts_at))


def _loss(authorizations: Sequence[Authorization], at: datetime) -> SuspensionReason:
    """Why no authorization is in force anymore: how the last one stopped."""
    last = max((a for a in authorizations if a.stops_at <= at), key=lambda a: a.stops_at)
    revoked = last.revoked_at is not None and last.revoked_at < last.valid_until
    return SuspensionReason.ATU_REVOKED if revoked else SuspensionReason.ATU_LAPSED
