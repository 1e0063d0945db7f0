"""Proves what the new features promise: approvals, seats' trials, quotas, and copies that agree with the service."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from muster_local.demo.cast import END
from muster_local.demo.evidence import Evidence, UsageSum
from muster_local.demo.new_features import Use
from muster_local.demo.proof.line import Line, conclude, differences, enrolled_at, instant, named

_DAY = timedelta(days=1)


def extension_approved(evidence: Evidence) -> Line:
    """Each extension of a trial was proposed by one person, and took effect when another person approved it."""
    trials = {data["window_id"] for _, data in named(evidence, "FeatureWindowOpened") if data["mode_after"] != "none"}
    extended = {
        data["window_id"]: fact.envelope.time
        for fact, data in named(evidence, "FeatureWindowExtended")
        if data["window_id"] in trials
    }
    proposals = {
        proposal.path.split("/")[5]: proposal
        for proposal in evidence.proposals
        if proposal.route.endswith("/windows/{window_id}/extension")
    }
    faults = differences("extension of", Counter(proposals.keys()), Counter(extended.keys()))
    for window_id, proposal in proposals.items():
        if proposal.state != "approved" or proposal.decided_by in (None, proposal.proposed_by):
            faults.append(f"{window_id}: by {proposal.proposed_by}, {proposal.state} by {proposal.decided_by}")
        if extended.get(window_id) != proposal.decided_at:
            faults.append(f"{window_id}: extended at {extended.get(window_id)}, decided at {proposal.decided_at}")
    people = sorted({f"{p.proposed_by} and {p.decided_by}" for p in proposals.values()})
    detail = f"{len(extended)} extended, by {', '.join(people)}"
    return conclude("Every longer trial approved by a second person", faults, detail, extended)


def seat_trials_expired_once(evidence: Evidence) -> Line:
    """Each seat's trial ended once, the right number of days after activation, and its agency got every notice."""
    ends = dict(_seats_ends(evidence))
    due = Counter(dict.fromkeys(ends.items(), 1))
    said = Counter(
        ((data["feature"], fact.envelope.agency_id, data["seat_id"]), fact.envelope.time)
        for fact, data in named(evidence, "SeatTrialExpired")
    )
    faults = differences("end of a seat's trial", due, said)
    faults += [f"the clock never stopped at {at}" for at in sorted(set(ends.values()) - evidence.instants)]
    notices: Counter[tuple[str, str, datetime, int]] = Counter()
    days_of = {feature["key"]: feature["ends_soon_days"] for feature, _ in _seats_features(evidence)}
    for (feature, agency_id, _), at in ends.items():
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        notices.update((feature, agency_id, midnight - days * _DAY, days) for days in days_of[feature])
    told: Counter[tuple[str, str, datetime, int]] = Counter()
    for fact, data in named(evidence, "SeatTrialsEndingSoon"):
        for each in data["ending"]:
            told[data["feature"], fact.envelope.agency_id, fact.envelope.time, each["days_left"]] += each["seats"]
    faults += differences("seat told of", notices, told)
    detail = f"{len(ends)} seats, each at its own instant, {told.total()} notices sent before the end"
    return conclude("Every trial of a seat ended once, and each lasted the same time", faults, detail, due)


def _seats_features(evidence: Evidence) -> Iterator[tuple[dict[str, Any], datetime]]:
    """The features with trials per seat, and since when they exist."""
    for fact, data in named(evidence, "FeatureCatalogPublished"):
        for feature in data["features"]:
            if feature["anchor"] == "seat":
                yield feature, fact.envelope.time


def _seats_ends(evidence: Evidence) -> Iterator[tuple[tuple[str, str, str], datetime]]:
    """When the trial of each seat ends, by feature, agency, and seat.

    Excludes seats whose trial would have ended before the feature existed.
    """
    for feature, since in _seats_features(evidence):
        agencies = enrolled_at(evidence, since)
        for fact, data in named(evidence, "SeatActivated"):
            ends_at = fact.envelope.time + feature["trial_days"] * _DAY
            if fact.envelope.agency_id in agencies and since < ends_at <= END:
                yield (feature["key"], fact.envelope.agency_id, data["seat_id"]), ends_at


def quota_kept(evidence: Evidence) -> Line:
    """Every use is counted once; no request went above the quota, and none within it was refused."""
    limits = {feature: quota["limit"] for feature, quota in _quotas(evidence).items()}
    used: Counter[UsageSum] = Counter()
    faults = []
    for use in evidence.uses:
        total = _sum_of(evidence, use)
        if total is None:
            faults.append(f"{use.feature}: nothing is counted at {use.at}")
            continue
        fits = used[total] + use.amount <= limits[use.feature]
        used[total] += use.amount if use.counted else 0
        if not use.reported and use.counted != fits:
            faults.append(f"{use.amount} at {use.at} are {'counted' if use.counted else 'refused'}")
        if use.used not in (None, used[total]):
            faults.append(f"the answer at {use.at} says {use.used}, not {used[total]}")
    faults += [
        f"{total.used} of {total.feature} in the sum from {total.starts_at}, not {used[total]}"
        for total in evidence.usage_sums
        if total.used != used[total]
    ]
    refused = [use for use in evidence.uses if not use.reported and not use.counted]
    detail = f"{used.total()} uses counted in {len(used)} months, {len(refused)} requests refused at the limit"
    return conclude("A quota counted every use, and refused at its limit", faults, detail, refused)


def thresholds_mailed_once(evidence: Evidence) -> Line:
    """Each crossed threshold of an agency's quota was announced once per period, with one e-mail."""
    quotas = _quotas(evidence)
    due: Counter[tuple[str, str, datetime, int]] = Counter()
    used: Counter[UsageSum] = Counter()
    for use in evidence.uses:
        total = _sum_of(evidence, use)
        if total is None or not use.counted:
            continue
        before, quota = used[total], quotas[use.feature]
        used[total] += use.amount
        due.update(
            (use.agency_id, use.feature, total.starts_at, percent)
            for percent in quota["thresholds"]
            if before * 100 < percent * quota["limit"] <= used[total] * 100
        )
    mails = defaultdict(list)
    for delivery in evidence.deliveries:
        if delivery.channel == "email" and delivery.id in evidence.mail_ids:
            mails[delivery.event_id].append(delivery.id)
    said: Counter[tuple[str, str, datetime, int]] = Counter()
    mailed: Counter[tuple[str, str, datetime, int]] = Counter()
    for fact, data in named(evidence, "AgencyQuotaThresholdCrossed"):
        period = instant(data["period_starts_at"])
        crossed = (fact.envelope.agency_id, data["feature"], period, data["threshold_percent"])
        said[crossed] += 1
        mailed[crossed] += len(mails[fact.envelope.id])
    faults = differences("threshold", due, said) + differences("e-mail of threshold", due, mailed)
    percents = ", ".join(f"{percent}%" for _, _, _, percent in due)
    return conclude("Each threshold of a quota mailed once", faults, f"{percents}: {mailed.total()} e-mails", due)


def _quotas(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """The quotas of whole agencies, by feature."""
    return {
        feature["key"]: feature["quota"]
        for _, data in named(evidence, "FeatureCatalogPublished")
        for feature in data["features"]
        if feature["quota"] is not None and feature["quota"]["per"] == "agency"
    }


def _sum_of(evidence: Evidence, use: Use) -> UsageSum | None:
    """The sum that a use counts toward."""
    return next(
        (
            total
            for total in evidence.usage_sums
            if (total.agency_id, total.feature) == (use.agency_id, use.feature)
            and total.starts_at <= use.at < total.ends_at
        ),
        None,
    )


def copy_agrees(evidence: Evidence) -> Line:
    """At every instant when the clock stopped, the local client gave the same answers as HTTP."""
    faults = [
        f"{each.subject_ref} and {each.feature} at {each.at}: {each.local} is not {each.told}"
        for each in evidence.comparisons
        if each.local != each.told
    ]
    compared = {each.at for each in evidence.comparisons}
    faults += [f"nothing was compared at {at}" for at in sorted(evidence.instants - compared)]
    allowed = sum(1 for each in evidence.comparisons if each.told.verdict == "allowed")
    detail = f"{len(evidence.comparisons):,} answers at {len(compared)} instants, {allowed:,} of them allowed"
    return conclude("A local copy agrees with HTTP wherever the clock stops", faults, detail, evidence.comparisons)
