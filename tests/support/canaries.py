"""Canaries: what must stay where it was put, and the search for it everywhere else."""

from dataclasses import dataclass, field
from io import StringIO
from urllib.parse import quote

from tests.support.collector import Collector

CANARY = "canary-password-4711"
CANARY_IN_PATHS = "canary-path-4712"
PEOPLE = {
    kind: {"name": f"Canary{kind.title()} Person", "email": f"canary.{kind}@agency.gov"}
    for kind in ("contact", "signer", "seat", "broken", "uploaded", "refused", "stranger", "payer")
}


@dataclass
class Searched:
    """What was said and kept, by where."""

    logged: StringIO
    collector: Collector
    found: dict[str, str] = field(default_factory=dict)

    def add(self, where: str, text: object) -> None:
        """Search this too."""
        self.found[where] = self.found.get(where, "") + str(text)

    def canaries(self, secrets: set[str]) -> list[tuple[str, str, str]]:
        """Each canary that was found: where, which, and what stands around it."""
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
