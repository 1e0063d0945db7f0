"""The refusals of entitlements."""

from muster_entitlements.domain import PoolState
from muster_runtime.errors import Conflict, NotFound, PermanentError


class PoolNotOpen(Conflict):
    """The agency's pool of seats is suspended, withdrawn or ended, or has not started."""

    slug = "pool-not-open"
    title = "The agency's seats are not open"

    def __init__(self, agency_id: str, state: PoolState) -> None:
        super().__init__(f"the pool of seats of {agency_id} is not open: {state}", reason=state.value)


class PoolUnknown(NotFound):
    """The agency has never been enrolled."""

    slug = "pool-unknown"
    title = "The agency has no pool of seats"

    def __init__(self, agency_id: str) -> None:
        super().__init__(f"{agency_id} has not been enrolled", reason=PoolState.UNKNOWN.value)


class SeatCapReached(Conflict):
    """Every seat of the agreed cap is held."""

    slug = "seat-cap-reached"
    title = "Every seat is in use"

    def __init__(self, agency_id: str, cap: int) -> None:
        super().__init__(f"all {cap} seats of {agency_id} are in use", reason=self.slug, cap=cap)


class SeatAlreadyHeld(Conflict):
    """The person holds a seat of this agency."""

    slug = "seat-already-held"
    title = "The person holds a seat"

    def __init__(self, subject_ref: str, seat_id: str) -> None:
        super().__init__(f"{subject_ref} holds seat {seat_id}", seat_id=seat_id)


class SeatRevokedAlready(Conflict):
    """A revoked seat does not come back; the person is given another."""

    slug = "seat-revoked"
    title = "The seat is revoked"

    def __init__(self, seat_id: str) -> None:
        super().__init__(f"seat {seat_id} is revoked")


class SeatUnknown(NotFound):
    """The agency has no such seat."""

    slug = "seat-unknown"
    title = "No such seat"

    def __init__(self, agency_id: str, seat_id: str) -> None:
        super().__init__(f"{agency_id} has no seat {seat_id[:60]!r}")


class FeatureUnknown(NotFound):
    """The catalogue has no such feature."""

    slug = "feature-unknown"
    title = "No such feature"

    def __init__(self, feature: str) -> None:
        super().__init__(f"the catalogue has no feature {feature[:60]!r}")


class TermUnknown(PermanentError):
    """Billing speaks of a term that it never started: a gap in its stream was accepted."""

    slug = "term-unknown"
    title = "No such term"

    def __init__(self, agency_id: str, term_id: str) -> None:
        super().__init__(f"{agency_id} has no term {term_id}: its TermStarted has never come")
