"""Two replicas whose clocks differ act as one, and no fact is dated before an earlier one."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from muster_enrollment.bootstrap import build
from muster_enrollment.domain.rules import CONTACT_RETENTION, SIGNER_RETENTION
from muster_enrollment.settings import EnrollmentSettings
from muster_runtime.process.roles import Role
from muster_runtime.service import Service
from tests.integration.enrollment.program import DAY, REGISTER, START, Program, acceptance, authorization, enrollment
from tests.integration.enrollment.test_model import Model, command
from tests.support.clocks import ShiftedClock
from tests.support.services import ServiceRunner

_agencies = count(1)

# The command, its authorization or first day, its number of days, and how far the clock of the replica that gets the
# command is behind; the other clock is right.
Step = tuple[str, int, int, timedelta | None]

# Shrinking a sequence of commands on real servers takes minutes, and a failing sequence is short already.
QUICK = (Phase.explicit, Phase.generate)

lags = st.sampled_from([None, timedelta(microseconds=1), timedelta(milliseconds=5), timedelta(seconds=1), 2 * DAY])
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["submit", "submit", "accept", "withdraw"]), st.just(0), st.just(0), lags),
        st.tuples(st.just("record"), st.integers(-3, 5), st.integers(1, 8), lags),
        st.tuples(st.just("revoke"), st.integers(0, 3), st.just(0), lags),
        st.tuples(st.just("advance"), st.integers(1, 6), st.just(0), st.none()),
    ),
    min_size=4,
    max_size=14,
)


def build_without_seals(settings: EnrollmentSettings) -> Service:
    """The service without its audit seals: each is a separate fact, and the model does not know when it comes."""
    return replace(build(settings), audit_sealed=None)


@pytest.fixture
async def empty(run_service: ServiceRunner) -> Program:
    """The first process; its clock is at the program's start."""
    service = await run_service(build_without_seals, EnrollmentSettings)
    service.clock.move(START)
    return Program(service)


@pytest.fixture
async def replica(empty: Program, run_service: ServiceRunner) -> Program:
    """A second process of the service, with the API only: the first handles the deadlines."""
    return Program(await run_service(build, EnrollmentSettings, roles=frozenset({Role.API}), beside=empty.service))


@given(steps)
@example(
    [
        ("submit", 0, 0, None),
        ("accept", 0, 0, None),
        ("record", 0, 5, None),
        ("record", 0, 3, timedelta(milliseconds=5)),
        ("advance", 1, 0, None),
    ]
)
@example(
    [
        ("advance", 6, 0, None),
        ("advance", 6, 0, None),
        ("submit", 0, 0, timedelta(microseconds=1)),
        ("accept", 0, 0, None),
        ("withdraw", 0, 0, None),
        ("revoke", 3, 0, timedelta(days=2)),
        ("advance", 6, 0, None),
        ("advance", 1, 0, None),
        ("submit", 0, 0, timedelta(days=2)),
    ]
)
@settings(max_examples=20, phases=QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_two_replicas_act_as_one(empty: Program, replica: Program, sequence: list[Step]) -> None:
    agency = f"AGENCY-{next(_agencies)}"
    header = "id,name,parent,treasury_code,domains,headcount,branch"
    await empty.import_register(f"{header}\n{agency},Invented,,,,,executive")
    clock = empty.service.clock.now()
    model = Model(clock)
    latest = clock - 3 * DAY  # when something of the agency was last stored; nothing yet
    erasures: list[datetime] = []  # when its contacts are erased, which also stores something of the agency
    for number, (what, first, second, lag) in enumerate(sequence):
        if what == "advance":
            clock += first * DAY
        else:
            asked = empty if lag is None else replica
            replica.service.clock.move(clock - (lag or timedelta()))
            model.now = max(latest, asked.service.clock.now())
            expected, answered = await command(asked, agency, model, what, first, second, str(number))
            assert answered == expected, what
            if 0 < expected < 400:  # otherwise nothing was stored
                latest = model.now
                erasures = _erasures_after(what, model, erasures)
        await empty.move(clock)  # handles what is due, including what a command with a late clock has scheduled
        model.now = latest
        bounds = [bound for span in model.spans if not span.revoked for bound in (span.start, span.end)]
        if any(latest < bound <= clock for bound in bounds) or any(due <= clock for due in erasures):
            model.advance(clock)
            latest = clock
            erasures = [due for due in erasures if due > clock]
        assert await empty.state(agency) == model.state
    facts = await empty.facts(agency)
    assert facts == model.facts
    assert [time for _, time in facts] == sorted(time for _, time in facts)


def _erasures_after(what: str, model: Model, erasures: list[datetime]) -> list[datetime]:
    """When an agency's contacts are erased after a command: not while an enrollment is live."""
    if what == "submit":
        return []
    if what == "withdraw":
        return [model.now + CONTACT_RETENTION]
    if what == "accept" and model.state in ("draft", "withdrawn"):
        return [*erasures, model.now + SIGNER_RETENTION]
    return erasures


async def test_a_clock_far_from_the_databases_refuses_commands_until_it_is_corrected(
    run_service: ServiceRunner,
) -> None:
    clock = ShiftedClock(timedelta(minutes=1))
    program = Program(await run_service(build, EnrollmentSettings, clock=clock))
    refused = await program.import_register(REGISTER)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert await program.service.admin.fetchval("select count(*) from agency") == 0
    clock.offset = timedelta()
    assert (await program.import_register(REGISTER)).status_code == 200
    start = clock.now()
    body = authorization(start, start + DAY)
    assert (await program.post("NASA", "enrollments", enrollment(starts_at=start.isoformat()))).status_code == 201
    assert (await program.post("NASA", "authorizations", body)).status_code == 201
    assert (await program.post("NASA", "data-use-acceptances", acceptance())).status_code == 201
