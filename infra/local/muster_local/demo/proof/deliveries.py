"""Proves what notify promises: every e-mail and webhook arrives once."""

from collections import Counter, defaultdict

from muster_contracts import event_types, topics
from muster_local.demo.evidence import READ, Evidence
from muster_local.demo.log import Fact, Stream
from muster_local.demo.proof.line import Line, conclude, differences, first_occurrences
from muster_notify.domain.deliveries import WEBHOOK_RULE
from muster_notify.domain.rules import Rule, rules, types_on_request


def mail_rules(fact: Fact) -> list[Rule]:
    """The rules that send an e-mail about an event."""
    of_type = rules().for_event(fact.envelope.type)
    if not of_type:
        return []  # for example for an erasure, which has no data
    event = event_types()[fact.envelope.type].model_validate(fact.data)
    return [rule for rule in of_type if rule.applies_to(event, fact.envelope.time)]


def one_delivery_per_intent(evidence: Evidence) -> Line:
    """Exactly the deliveries required by the rules and the subscription exist, each once, and all are delivered."""
    due: Counter[tuple[str, str]] = Counter()
    for fact in first_occurrences(evidence.facts):
        event_id, event_type = fact.envelope.id, fact.envelope.type
        due.update((event_id, rule.name) for rule in mail_rules(fact))
        topic = topics()[fact.topic]
        if topic.access == "public" and topic.name in READ["notify"] and event_type not in types_on_request():
            due[event_id, WEBHOOK_RULE] += 1
    made = Counter((d.event_id, d.rule) for d in evidence.deliveries)
    faults = differences("delivery of", due, made)
    faults += [
        f"{d.id} ({d.rule} to {d.recipient}) is {d.state}" for d in evidence.deliveries if d.state != "delivered"
    ]
    channels = Counter(d.channel for d in evidence.deliveries)
    detail = ", ".join(f"{count:,} by {channel}" for channel, count in sorted(channels.items()))
    return conclude("One delivery per intent, all delivered", faults, detail, made)


def webhooks_verified(evidence: Evidence) -> Line:
    """The receiver verified every signature and got every message, in order within each stream."""
    faults = [f"{message.id} is not verified" for message in evidence.messages if not message.verified]
    sent = {d.id for d in evidence.deliveries if d.channel == "webhook"}
    received = {message.id for message in evidence.messages}
    faults += differences("message", Counter(sent), Counter(received))
    last: defaultdict[Stream, int] = defaultdict(int)
    seen: set[str] = set()
    for message in evidence.messages:
        if message.id in seen:
            continue
        seen.add(message.id)
        body = message.body
        stream = (body["topic"], body["agency_id"])
        if int(body["sequence"]) <= last[stream]:
            faults.append(f"{message.id}: {body['sequence']} of {stream} came after {last[stream]}")
        last[stream] = int(body["sequence"])
    detail = f"{len(received):,} messages, {len(evidence.messages) - len(received)} repeated"
    return conclude("Every webhook verified by its receiver, and in order", faults, detail, received)


def mails_arrived(evidence: Evidence) -> Line:
    """The mail sink has exactly the e-mail deliveries."""
    sent = {d.id for d in evidence.deliveries if d.channel == "email"}
    arrived = set(evidence.mail_ids)
    faults = differences("e-mail", Counter(sent), Counter(arrived))
    detail = f"{len(arrived)} e-mails, {len(evidence.mail_ids) - len(arrived)} repeated"
    return conclude("Every e-mail in the mail sink", faults, detail, arrived)
