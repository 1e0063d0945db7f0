"""The refusals of entitlements."""

from datetime import timedelta

from muster_entitlements.checks import Reason
from muster_entitlements.domain import PoolState, Seat, SeatAction
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


class SeatStateRefused(Conflict):
    """The seat's state does not allow what was asked for."""

    slug = "seat-state"
    title = "The seat's state does not allow it"

    def __init__(self, seat: Seat, action: SeatAction) -> None:
        super().__init__(f"seat {seat.seat_id} is {seat.state}: it cannot be {action}", reason=seat.state.value)


class CapBelowUse(Conflict):
    """More seats are in use than would be agreed."""

    slug = "cap-below-use"
    title = "More seats are in use"

    def __init__(self, cap: int, in_use: int) -> None:
        super().__init__(f"cap: {cap} is refused: {in_use} seats are in use", in_use=in_use)


class UseRefused(Conflict):
    """The person may not use the feature now."""

    slug = "use-refused"
    title = "The feature may not be used"

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the feature may not be used: {reason}", reason=reason.value)


class OperationUnknown(NotFound):
    """The agency has no such operation."""

    slug = "operation-unknown"
    title = "No such operation"

    def __init__(self, agency_id: str, operation_id: str) -> None:
        super().__init__(f"{agency_id} has no operation {operation_id[:60]!r}")


class UploadCutOff(PermanentError):
    """The file has no end: the connection was lost before. Nothing was done."""

    status = 400
    slug = "upload-cut-off"
    title = "The file has no end"

    def __init__(self) -> None:
        super().__init__("the connection was lost before the end of the file")


class UploadTooSlow(PermanentError):
    """The file took so long to come that what there was of it has been discarded."""

    status = 408
    slug = "upload-too-slow"
    title = "The file took too long"

    def __init__(self, patience: timedelta) -> None:
        super().__init__(f"the file did not come within {patience}; nothing was done")


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
