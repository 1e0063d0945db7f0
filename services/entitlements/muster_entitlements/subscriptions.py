"""Which handler applies which event, and which is called when something is due."""

from muster_contracts import Event
from muster_contracts.billing import RenewalDecided, TermEnded, TermStarted
from muster_contracts.enrollment import AgencyEnrolled, AgencyReinstated, AgencySuspended, AgencyWithdrawn
from muster_entitlements.handlers import closings, idle, operations, pools, rules, seats, trials
from muster_runtime.messaging.events import EventHandler
from muster_runtime.scheduling.deadlines import DeadlineHandler

SUBSCRIPTIONS: dict[type[Event], EventHandler] = {
    AgencyEnrolled: pools.open_pools,
    AgencySuspended: pools.suspend_pools,
    AgencyReinstated: pools.reinstate_pools,
    AgencyWithdrawn: pools.withdraw_pools,
    TermStarted: pools.record_terms,
    RenewalDecided: pools.renew_pools,
    TermEnded: pools.end_pools,
}

DEADLINES: dict[str, DeadlineHandler] = {
    trials.TRIAL_ENDING_SOON: trials.announce_trial_ends,
    trials.TRIAL_EXPIRED: trials.expire_trials,
    closings.SEATS_CLOSED: closings.revoke_step,
    seats.INVITATION_EXPIRED: rules.expire_invitations,
    idle.IDLE_SEATS: idle.look_for_idle_seats,
    operations.UPLOAD_ABANDONED: operations.discard_uploads,
    operations.ROWS_FORGOTTEN: operations.forget_rows,
    operations.REST_CLEARED: operations.clear_rest,
}
