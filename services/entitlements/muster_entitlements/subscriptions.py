"""Event → handler, and deadline → handler."""

from muster_contracts import Event
from muster_contracts.billing import RenewalDecided, TermEnded, TermStarted
from muster_contracts.enrollment import AgencyEnrolled, AgencyReinstated, AgencySuspended, AgencyWithdrawn
from muster_entitlements.handlers import (
    adoption,
    adoptions,
    closings,
    idle,
    operations,
    pools,
    quota_terms,
    rollouts,
    seat_trials,
    seats,
    trials,
    uploads,
)
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler

SUBSCRIPTIONS: dict[type[Event], EventHandler] = {
    AgencyEnrolled: pools.on_agency_enrolled,
    AgencySuspended: pools.on_agency_suspended,
    AgencyReinstated: pools.on_agency_reinstated,
    AgencyWithdrawn: pools.on_agency_withdrawn,
    TermStarted: pools.on_term_started,
    RenewalDecided: pools.on_renewal_decided,
    TermEnded: pools.on_term_ended,
}

DEADLINES: dict[str, DeadlineHandler] = {
    trials.TRIAL_ENDING_SOON: trials.on_trial_ending_soon_due,
    trials.TRIAL_EXPIRED: trials.on_trial_expired_due,
    trials.GRACE_ENDED: trials.on_grace_ended_due,
    seat_trials.SEAT_TRIALS_ENDING_SOON: seat_trials.on_seat_trials_ending_soon_due,
    seat_trials.SEAT_TRIAL_ENDS: seat_trials.on_seat_trial_ends_due,
    adoptions.CATALOG_NEXT_TERM: rollouts.on_catalog_next_term_due,  # after what it would cancel
    adoptions.CATALOG_AFTER_GRACE: rollouts.on_catalog_after_grace_due,
    quota_terms.QUOTA_USES_TOLD: quota_terms.on_quota_uses_told_due,
    adoption.ADOPTION_SUMMARIZED: adoption.on_adoption_summarized_due,
    closings.SEATS_CLOSED: closings.on_seats_closed_due,
    seats.INVITATION_EXPIRED: seats.on_invitation_expired_due,
    idle.IDLE_SEATS: idle.on_idle_seats_due,
    uploads.UPLOAD_ABANDONED: uploads.on_upload_abandoned_due,
    operations.ROWS_FORGOTTEN: operations.on_operation_rows_forgotten_due,
    operations.REST_CLEARED: operations.on_operation_rest_cleared_due,
}

# Use that was reported before one of these is due decides what it does.
DEADLINES_OF_USE = (adoption.ADOPTION_SUMMARIZED, idle.IDLE_SEATS)

# Each schedules its next step, or deletes addresses.
REQUIRED_DEADLINES = (
    seat_trials.SEAT_TRIALS_ENDING_SOON,
    seat_trials.SEAT_TRIAL_ENDS,
    adoptions.CATALOG_AFTER_GRACE,
    adoptions.CATALOG_NEXT_TERM,
    quota_terms.QUOTA_USES_TOLD,
    adoption.ADOPTION_SUMMARIZED,
    closings.SEATS_CLOSED,
    idle.IDLE_SEATS,
    uploads.UPLOAD_ABANDONED,
    operations.ROWS_FORGOTTEN,
    operations.REST_CLEARED,
)
