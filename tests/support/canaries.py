"""Canaries: values that must not leave their place, and the search for them everywhere else."""

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from io import StringIO
from typing import Any
from urllib.parse import quote

from muster_contracts.entitlements import FeatureUsed
from tests.support.collector import Collector

CANARY = "canary-password-4711"
CANARY_IN_PATHS = "canary-path-4712"
# The keys of entitlements and notify.
SUBJECT_KEY = "canary-subject-key-4713-canary-subject-key"
SECRET_KEY = urlsafe_b64encode(b"canary-secret-key-4714".ljust(32, b"-")).decode()
PEOPLE = {
    kind: {"name": f"Canary{kind.title()} Person", "email": f"canary.{kind}@agency.gov"}
    for kind in ("contact", "signer", "seat", "broken", "uploaded", "refused", "stranger", "payer")
}

# On the seat's table: a fault whose message quotes an address, as of a value that does not fit its column.
BREAK_A_SEAT = """
create function quote_the_address() returns trigger language plpgsql as $$
begin
    perform new.email::integer;
    return new;
end $$;
create trigger quote_the_address before insert on seat
for each row when (new.email like '%canary.broken%' or new.email like '%canary.uploaded%')
execute function quote_the_address();
"""

# On the payments' table: likewise, of what the payer wrote.
BREAK_A_PAYMENT = """
create function quote_the_payer() returns trigger language plpgsql as $$
begin
    perform new.reference::integer;
    return new;
end $$;
create trigger quote_the_payer before insert on payment
for each row when (new.reference like '%canary.payer%') execute function quote_the_payer();
"""

# On notify's directory: a constraint whose detail quotes the whole row.
BREAK_A_CONTACT = "alter table directory add constraint broken check (email not like '%canary.broken%')"


@dataclass
class Searched:
    """What was logged, exported, or stored, by place."""

    logged: StringIO
    collector: Collector
    found: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, text: object) -> None:
        """Search this too."""
        self.found[where] = self.found.get(where, "") + str(text)

    def canaries(self, secrets: set[str]) -> list[tuple[str, str, str]]:
        """Each canary that was found: its place, the canary, and the text around it."""
        self.found |= {"logs": self.logged.getvalue(), "spans": self.collector.received.decode("utf-8", "replace")}
        sought = secrets | {
            part for person in PEOPLE.values() for part in (*person.values(), person["name"].split()[0])
        }
        sought |= {quote(each) for each in sought}
        return [
            (where, each, text[max(0, place - 200) : place + 200])
            for where, text in self.found.items()
            for each in sorted(sought)
            if (place := text.lower().find(each.lower())) >= 0
        ]


def worthless_use(email: str, at: str) -> list[bytes]:
    """Records of use with an address in each place; only the first one counts."""
    data = {"agency_id": "NASA", "subject_ref": f"sub_{'a' * 32}", "feature": "deep-research", "amount": 1}
    event = {
        "specversion": "1.0",
        "id": email,
        "source": email,
        "type": FeatureUsed.event_type,
        "time": at,
        "data": data,
    }
    changes: list[dict[str, Any]] = [{name: email} for name in ("specversion", "type", "time", "data")]
    changes += [{"data": data | {name: email}} for name in data]
    another = {"data": data | {"amount": 2}}  # with the ID that counted
    values = [json.dumps(event | change) for change in ({}, *changes, another)]
    return [value.encode() for value in (*values, email, json.dumps([email]))]
