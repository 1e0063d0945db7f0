"""Random commands and moves of the clock against a model that is simple enough to be obviously right."""

from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.enrollment.program import DAY, Program, acceptance, authorization, enrollment

_agencies = count(1)

Step = tuple[str, int, int]


@dataclass
class Span:
    """An authorization of the model."""

    number: str
    start: datetime
    end: datetime
    revoked: bool = False

    def holds(self, at: datetime) -> bool:
        """Whether it is in force."""
        return not self.revoked and self.start <= at < self.end


@dataclass
class Model:
    """The expected service: its facts with their times, its state, and each command's status."""

    now: datetime
    state: str = "draft"
    bound: bool = False
    spans: list[Span] = field(default_factory=list)
    facts: list[tuple[str, datetime]] = field(default_factory=list)

    def publish(self, fact: str) -> None:
        """Publish a fact as of now."""
        self.facts.append((fact, self.now))

    def settle(self) -> None:
        """A submitted enrollment is active if an authorization is in force and the terms are accepted."""
        met = self.bound and any(span.holds(self.now) for span in self.spans)
        if self.state == "submitted" and met:
            self.state = "active"
            self.publish("AgencyEnrolled")
        elif self.state == "active" and not met:
            self.state = "suspended"
            self.publish("AgencySuspended")
        elif self.state == "suspended" and met:
            self.state = "active"
            self.publish("AgencyReinstated")

    def advance(self, to: datetime) -> None:
        """Move the clock from one start or end to the next."""
        bounds = {bound for span in self.spans if not span.revoked for bound in (span.start, span.end)}
        for bound in sorted(bound for bound in bounds if self.now < bound <= to):
            self.now = bound
            for span in self.spans:
                if span.end == bound and not span.revoked and not any(other.holds(bound) for other in self.spans):
                    self.publish("AtuLapsed")
            self.settle()
        self.now = to

    def submit(self) -> int:
        """Submit; refused while another enrollment is live."""
        if self.state in ("submitted", "active", "suspended"):
            return 409
        self.state = "submitted"
        self.publish("AgencyEnrollmentSubmitted")
        self.settle()
        return 201

    def withdraw(self) -> int:
        """Withdraw; refused unless one is live."""
        if self.state not in ("submitted", "active", "suspended"):
            return 409
        self.state = "withdrawn"
        self.publish("AgencyWithdrawn")
        return 200

    def accept(self) -> int:
        """Accept the terms, once."""
        if self.bound:
            return 409
        self.bound = True
        self.publish("DataUseTermsAccepted")
        self.settle()
        return 201

    def record(self, span: Span) -> int:
        """Record an authorization that has time left."""
        if span.end <= self.now:
            return 422
        self.spans.append(span)
        self.publish("AtuRecorded")
        self.settle()
        return 201

    def revoke(self, span: Span) -> int:
        """Revoke an authorization that has not stopped."""
        if span.revoked or span.end <= self.now:
            return 409
        span.revoked = True
        self.settle()
        return 200


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["submit", "submit", "accept", "withdraw"]), st.just(0), st.just(0)),
        st.tuples(st.just("record"), st.integers(-3, 5), st.integers(1, 8)),
        st.tuples(st.just("revoke"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("advance"), st.integers(1, 6), st.just(0)),
    ),
    min_size=4,
    max_size=14,
)


@given(steps)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_service_matches_the_model(empty: Program, sequence: list[Step]) -> None:
    agency = f"AGENCY-{next(_agencies)}"
    header = "id,name,parent,treasury_code,domains,headcount,branch"
    await empty.import_register(f"{header}\n{agency},Invented,,,,,executive")
    model = Model(empty.service.clock.now())
    for number, (what, first, second) in enumerate(sequence):
        if what == "advance":
            to = model.now + first * DAY
            await empty.move(to)
            model.advance(to)
        else:
            expected, answered = await command(empty, agency, model, what, first, second, str(number))
            assert answered == expected, what
        assert await empty.state(agency) == model.state
    assert await empty.facts(agency) == model.facts


async def command(
    program: Program, agency: str, model: Model, what: str, first: int, second: int, number: str
) -> tuple[int, int]:
    """The status that the model expects, and the status that the service returns."""
    if what == "submit":
        expected, path, body = model.submit(), "enrollments", enrollment()
    elif what == "accept":
        expected, path, body = model.accept(), "data-use-acceptances", acceptance()
    elif what == "withdraw":
        return model.withdraw(), (await program.withdraw(agency)).status_code
    elif what == "record":
        span = Span(number, model.now + first * DAY, model.now + (first + second) * DAY)
        expected = model.record(span)
        path, body = "authorizations", authorization(span.start, span.end, number=number)
    else:
        listed = (await program.get(f"agencies/{agency}/authorizations")).json()["items"]
        ids = {item["number"]: item["authorization_id"] for item in listed}
        if first >= len(model.spans):
            return 0, 0
        span = model.spans[first]
        expected = model.revoke(span)
        path, body = f"authorizations/{ids[span.number]}/revocation", {"reason": "superseded"}
    return expected, (await program.post(agency, path, body)).status_code
