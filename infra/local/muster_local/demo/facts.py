"""Events as English sentences."""

from collections.abc import Callable, Mapping
from typing import Any

from muster_local.demo.log import Fact

Data = Mapping[str, Any]


def _money(amount: Data) -> str:
    return f"{amount['amount_minor'] / 100:.2f} {amount['currency']}"


def _feature(data: Data) -> str:
    return str(data["feature"]).replace("-", " ").title()


def _day(instant: str) -> str:
    return instant[:10]


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


_WORDS: dict[str, Callable[[Data], str]] = {
    "AgencyEnrollmentSubmitted": lambda d: f"requests {d['seats_requested']:,} seats",
    "AtuRecorded": lambda d: f"is authorized until {_day(d['valid_until'])}",
    "AtuLapsed": lambda d: f"no longer has an authorization: {d['number']} has ended",
    "DataUseTermsAccepted": lambda d: f"accepts the data-use terms {d['terms_version']}",
    "AgencyEnrolled": lambda d: f"is enrolled with {d['seats']:,} seats until {_day(d['ends_at'])}",
    "AgencySuspended": lambda d: f"is suspended: {d['reason'].replace('_', ' ')}",
    "AgencyReinstated": lambda d: "is active again",
    "AgencyWithdrawn": lambda d: f"has withdrawn: {d['reason']}",
    "SeatLimitReached": lambda d: f"has all of its {d['cap']:,} seats in use",
    "FeatureWindowOpened": lambda d: f"has {_feature(d)} until {_day(d['ends_at'])}",
    "FeatureWindowExtended": lambda d: f"has {_feature(d)} extended until {_day(d['ends_at'])}",
    "FeatureWindowChanged": lambda d: f"has {_feature(d)} on new terms",
    "TrialEndingSoon": lambda d: f"loses unlimited {_feature(d)} in {_days(d['days_left'])}",
    "TrialExpired": lambda d: f"now has {_feature(d)} within a monthly quota",
    "FeatureAccessChanged": lambda d: f"has reached the end of the grace period for {_feature(d)}",
    "SeatTrialsEndingSoon": lambda d: f"has seats whose trials of {_feature(d)} end soon",
    "AgencyQuotaThresholdCrossed": lambda d: f"has used {d['threshold_percent']}% of its quota of {_feature(d)}",
    "TermStarted": lambda d: f"starts term {d['number']} at {_money(d['price'])}",
    "InvoiceIssued": lambda d: f"receives invoice {d['invoice_number']} for {_money(d['amount'])}",
    "InvoicePaid": lambda d: f"has paid {_money(d['amount'])}",
    "InvoiceVoided": lambda d: f"owes nothing on its voided invoice: {d['reason']}",
    "PaymentOverdue": lambda d: f"has not paid; {_days(d['days_overdue'])} overdue",
    "RenewalOffered": lambda d: f"is offered another year at {_money(d['price'])}",
    "RenewalDecided": lambda d: f"has {d['decision']} the renewal",
    "TermEnded": lambda d: f"has reached the end of its term: {d['reason']}",
}


def in_words(fact: Fact) -> str | None:
    """The event as a sentence; None for types that occur by the thousand or concern a person."""
    words = _WORDS.get(fact.name)
    return f"{fact.envelope.agency_id} {words(fact.data)}." if words and fact.data else None
