"""The proof that the books balance: each line checks one claim against the evidence."""

from collections.abc import Callable, Sequence

from muster_local.demo.evidence import Evidence
from muster_local.demo.proof.deliveries import mails_arrived, one_delivery_per_intent, webhooks_verified
from muster_local.demo.proof.features import (
    copy_agrees,
    extension_approved,
    quota_kept,
    seat_trials_expired_once,
    thresholds_mailed_once,
)
from muster_local.demo.proof.line import Line
from muster_local.demo.proof.program import (
    catalog_reached_everyone,
    everyone_enrolled,
    ledger_balances,
    one_term_and_invoice,
    seats_within_cap,
    trials_expired_once,
)
from muster_local.demo.proof.streams import effects_once, nothing_waits, streams_applied, streams_gapless

__all__ = ["LINES", "Line", "prove"]

LINES: Sequence[Callable[[Evidence], Line]] = (
    everyone_enrolled,
    one_term_and_invoice,
    seats_within_cap,
    trials_expired_once,
    catalog_reached_everyone,
    extension_approved,
    seat_trials_expired_once,
    quota_kept,
    thresholds_mailed_once,
    copy_agrees,
    streams_gapless,
    streams_applied,
    effects_once,
    one_delivery_per_intent,
    webhooks_verified,
    mails_arrived,
    nothing_waits,
    ledger_balances,
)


def prove(evidence: Evidence) -> list[Line]:
    return [line(evidence) for line in LINES]
