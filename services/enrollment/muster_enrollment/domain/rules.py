"""What may be done, and what it does to an agency's standing."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from muster_contracts.enrollment import SuspensionReason
from muster_enrollment.domain.facts import Acceptance, Authorization, Branch, Closure, Enrollment, Standing, State, Term
from muster_runtime.errors import Conflict, InvalidInput, NotFound

# What the programme's authorizations must say: GSA issues them, for this product.
ISSUER = "GSA"
PRODUCT = "frontier-assistant"

# The versions of the data-use terms that bind: business data is never used for training.
TERMS_VERSIONS = frozenset({"2025-08"})

# The day on which GSA announced the program; no enrollment starts before it.
PROGRAM_START = datetime(2025, 8, 6, tzinfo=UTC)

# Contacts and signers speak for a federal agency, so their addresses are a government's.
_GOVERNMENT_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:gov|mil)")

# How long an agency's contacts are known after it has left: for the messages that say so.
FAREWELL = timedelta(days=1)

# How long a signer is known who signed while no enrollment was live: for the one that is to be submitted.
SIGNED_AHEAD = timedelta(days=90)

# A start further away than this is taken for a slip of the pen.
LONGEST_LEAD = timedelta(days=366)


def settle(standing: Standing, at: datetime) -> Standing:
    """The standing after its conditions have had their effect at an instant; the only way to or from active."""
    enrollment = standing.live
    if enrollment is None:
        return standing
    met = not standing.missing(at)
    if enrollment.state is State.SUBMITTED and met:
        term = first_term(enrollment.requested_start, at)
        settled = replace(enrollment, state=State.ACTIVE, term=term)
    elif enrollment.state is State.ACTIVE and not met:
        reason = _loss(standing.authorizations, at)
        settled = replace(enrollment, state=State.SUSPENDED, suspension_reason=reason)
    elif enrollment.state is State.SUSPENDED and met:
        settled = replace(enrollment, state=State.ACTIVE, suspension_reason=None)
    else:
        return standing
    return replace(standing, enrollment=replace(settled, changed_at=at))


def boundaries(standing: Standing, until: datetime) -> list[datetime]:
    """The instants up to `until` at which an authorization started or stopped since the enrolment's last change.

    To settle at each in turn is to catch up with the time that passed; what came before the change stays as it is.
    """
    if standing.live is None:
        return []
    instants = {instant for a in standing.authorizations for instant in (a.valid_from, a.stops_at)}
    return sorted(instant for instant in instants if standing.live.changed_at <= instant <= until)


def check_address(field: str, email: str) -> None:
    """Raise InvalidInput unless an e-mail address is of a .gov or .mil domain."""
    if not _GOVERNMENT_DOMAIN.fullmatch(email.rpartition("@")[2].lower()):
        raise InvalidInput(field, email, "it must be an address of a .gov or .mil domain")


def check_seats(seats: int, headcount: int | None, seats_per_head: float) -> None:
    """Raise InvalidInput for more seats than the heads of the agency and its sub-agencies account for.

    Where the agency's headcount is not known (None), nothing limits the seats.
    """
    if headcount is None:
        return
    most = math.floor(headcount * seats_per_head)
    if seats > most:
        raise InvalidInput(
            "seats",
            seats,
            f"it must be at most {most}: {seats_per_head:g} times the headcount of {headcount}, with sub-agencies",
        )


def submit(
    standing: Standing, *, enrollment_id: str, seats: int, requested_start: datetime, contact_ref: str, now: datetime
) -> Standing:
    """The standing with a new enrolment, submitted.

    Raises InvalidInput for an agency outside the executive branch or a start before the program's or too far away,
    Conflict while another enrollment is live.
    """
    if standing.agency.branch is not Branch.EXECUTIVE:
        raise InvalidInput(
            "agency_id", standing.agency.id, f"it must be of the executive branch, and is {standing.agency.branch}"
        )
    if standing.live:
        raise Conflict(
            f"{standing.agency.id} has a live enrolment ({standing.live.enrollment_id}, {standing.live.state}); "
            "an agency has one at a time"
        )
    if requested_start < PROGRAM_START:
        raise InvalidInput(
            "starts_at",
            requested_start.isoformat(),
            f"it must not be before the program's start, {PROGRAM_START.isoformat()}",
        )
    if requested_start > now + LONGEST_LEAD:
        raise InvalidInput("starts_at", requested_start.isoformat(), f"it lies at most {LONGEST_LEAD.days} days ahead")
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
    )
    return replace(standing, enrollment=enrollment)


def check_authorization(issuer: str, product: str, valid_from: datetime, valid_until: datetime, now: datetime) -> None:
    """Raise InvalidInput unless the authorization is one of the programme's and has time left."""
    if issuer != ISSUER:
        raise InvalidInput("issuer", issuer, f"authorizations are issued by {ISSUER}")
    if product != PRODUCT:
        raise InvalidInput("product", product, f"the programme's product is {PRODUCT}")
    if valid_until <= valid_from:
        raise InvalidInput("valid_until", valid_until.isoformat(), "it must be after valid_from")
    if valid_until <= now:
        raise InvalidInput("valid_until", valid_until.isoformat(), "it must lie in the future")


def authorize(standing: Standing, authorization: Authorization) -> Standing:
    """The standing with one more authorization. Raises Conflict when its number is recorded already."""
    if any(known.number == authorization.number for known in standing.authorizations):
        raise Conflict(f"authorization {authorization.number} of {standing.agency.id} is recorded already")
    return replace(standing, authorizations=(*standing.authorizations, authorization))


def revoke(standing: Standing, authorization_id: str, now: datetime) -> tuple[Standing, Authorization]:
    """The standing with an authorization revoked, and that one.

    Raises NotFound, or Conflict when it has stopped already.
    """
    known = {a.authorization_id: a for a in standing.authorizations}
    if authorization_id not in known:
        raise NotFound(f"{standing.agency.id} has no authorization {authorization_id!r}")
    authorization = known[authorization_id]
    if authorization.stops_at <= now:
        raise Conflict(f"authorization {authorization.number} stopped at {authorization.stops_at.isoformat()}")
    revoked = replace(authorization, revoked_at=now)
    known[authorization_id] = revoked
    return replace(standing, authorizations=tuple(known.values())), revoked


def accept_terms(standing: Standing, acceptance: Acceptance) -> Standing:
    """The standing with one more acceptance.

    Raises InvalidInput for a version that is not known, Conflict for one that binds the agency already.
    """
    version = acceptance.terms_version
    if version not in TERMS_VERSIONS:
        raise InvalidInput("terms_version", version, f"it must be one of {', '.join(sorted(TERMS_VERSIONS))}")
    if any(known.terms_version == version for known in standing.acceptances):
        raise Conflict(f"{standing.agency.id} has accepted version {version} already")
    return replace(standing, acceptances=(*standing.acceptances, acceptance))


def withdraw(standing: Standing, reason: str, now: datetime) -> Standing:
    """The standing with its live enrolment withdrawn. Raises Conflict when there is none."""
    if standing.live is None:
        raise Conflict(f"{standing.agency.id} has no live enrolment to withdraw")
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


def end_term(standing: Standing, ended_at: datetime) -> Standing:
    """The standing after a term ran out at `ended_at` and no other follows on.

    A term that ends before the live enrolment's own first one was of an earlier enrolment, and changes nothing.
    """
    enrollment = standing.live
    if enrollment is None or enrollment.term is None or ended_at < enrollment.term.ends_at:
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
    """A calendar year from the requested start, or from the activation when that is later."""
    starts_at = max(requested_start, activated_at)
    return Term(starts_at, one_year_after(starts_at))


def one_year_after(instant: datetime) -> datetime:
    """The same day and time a calendar year later; 28 February for a leap day."""
    try:
        return instant.replace(year=instant.year + 1)
    except ValueError:
        return instant.replace(year=instant.year + 1, day=28)


def _loss(authorizations: Sequence[Authorization], at: datetime) -> SuspensionReason:
    """Why no authorization is in force any more: how the one that stopped last did so."""
    last = max((a for a in authorizations if a.stops_at <= at), key=lambda a: a.stops_at)
    revoked = last.revoked_at is not None and last.revoked_at < last.valid_until
    return SuspensionReason.ATU_REVOKED if revoked else SuspensionReason.ATU_LAPSED
