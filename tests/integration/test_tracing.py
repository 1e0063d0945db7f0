"""One command's way through three services and out to a webhook: one trace, without a word of personal data."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from muster_billing.bootstrap import build as build_billing
from muster_billing.settings import BillingSettings
from muster_enrollment.bootstrap import build as build_enrollment
from muster_enrollment.handlers.authorizations import ATU
from muster_enrollment.settings import EnrollmentSettings
from muster_notify.bootstrap import build as build_notify
from muster_notify.settings import NotifySettings
from muster_runtime.observability import tracing
from tests.integration.enrollment.program import REGISTER, START, Program, acceptance, authorization, enrollment
from tests.integration.notify.conftest import Notify
from tests.integration.notify.mail import MailServer, mail_server
from tests.integration.notify.receiver import Receiver, Request, receiving
from tests.support.collector import Collector, Span, collecting
from tests.support.eventually import eventually
from tests.support.services import RunningService, ServiceRunner

TRACE = "ab" * 16
CALLER = "cd" * 8
UNSAMPLED = "ef" * 16

# Each stands for what must reach no collector: names, addresses, and secrets.
CANARIES = ("Invented", "invented", "agency.gov", "canary", "eyJ", "whsec_")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which the services of this process export."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        tracing.start("muster", "test")
        yield collector
        tracing.stop()


async def test_a_command_its_events_and_its_webhooks_are_one_trace(
    run_service: ServiceRunner, collector: Collector
) -> None:
    async with receiving(Receiver()) as receiver, mail_server(MailServer()) as mail:
        program = Program(await run_service(build_enrollment, EnrollmentSettings))
        billing = await run_service(build_billing, BillingSettings)
        notify = Notify(
            await run_service(
                build_notify,
                NotifySettings,
                smtp_port=mail.port,
                smtp_starttls=False,
                webhook_allow_private=True,
            )
        )
        for service in (program.service, billing, notify.service):
            service.clock.move(START)
        await program.import_register(REGISTER)
        await notify.add_webhook(receiver.url, "*")
        await program.post("NASA", "enrollments", enrollment())
        await program.post("NASA", "authorizations", authorization())
        header = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        await _be_refused(program)
        # What came before is in other traces, and a batch with several of them belongs to the first one.
        await eventually(lambda: _is_quiet(program.service, billing, notify.service))

        accepted = await program.post("NASA", "data-use-acceptances", acceptance(), **header)
        assert accepted.status_code == 201, accepted.text

        await eventually(lambda: {"AgencyEnrolled", "InvoiceIssued"} <= {_event(each) for each in receiver.requests})
        await eventually(lambda: _is_one_tree(collector.of_trace(TRACE)))
        await eventually(lambda: _goes_through_all(collector.of_trace(TRACE)))
        await eventually(lambda: _names_its_attempts(receiver, collector))

        for service in (notify.service, program.service):
            service.clock.move(START + timedelta(days=30))  # the authorization ends
        (due,) = await eventually(lambda: _named(collector.spans, "handle deadlines"))
        assert (due.parent_id, due.attributes["muster.deadline.kinds"]) == ("", [ATU])
        (write,) = await eventually(lambda: _named(collector.of_trace(due.trace_id), "write enrollment"))
        assert write.parent_id == due.span_id
        await eventually(lambda: "AgencySuspended" in {_event(each) for each in receiver.requests})
        await eventually(lambda: _named(collector.of_trace(due.trace_id), "deliver webhook"))

        # A caller whose trace is not sampled: its command is carried out, and leaves no span anywhere.
        recorded = authorization(end=START + timedelta(days=60))
        header = {"traceparent": f"00-{UNSAMPLED}-{CALLER}-00"}
        answer = await program.post("DOE", "authorizations", recorded, **header)
        assert answer.status_code == 201, answer.text
        (carried,) = {envelope.traceparent for envelope in await program.envelopes("DOE")}
        assert carried is not None
        assert (carried[3:35], carried[52:]) == (UNSAMPLED, "-00")
        await eventually(
            lambda: "AtuRecorded" in {_event(each) for each in receiver.requests if "DOE" in str(each.body)}
        )
        (passed_on,) = {each.headers["traceparent"] for each in receiver.requests if "DOE" in str(each.body)}
        assert passed_on == carried
    tracing.stop()
    assert collector.of_trace(UNSAMPLED) == []
    assert [canary for canary in CANARIES if canary.encode() in collector.received] == []


async def _is_quiet(*services: RunningService) -> bool:
    """Whether all that was published is applied, twice over: what is applied may publish again."""
    for service in (*services, *services):
        if await service.admin.fetchval("select count(*) from outbox"):
            return False
        if (await service.client.get("/sandbox/state")).json()["lag"]:
            return False
    return True


async def _be_refused(program: Program) -> None:
    """Send what is refused, with a canary in each place that a caller can choose."""
    await program.post("canary@agency.gov", "enrollments", enrollment())
    await program.post("NASA", "data-use-acceptances", acceptance(signer={"name": "canary", "email": "canary"}))
    await program.get("agencies?canary=canary", Authorization="Bearer canary")


def _is_one_tree(spans: Sequence[Span]) -> bool:
    """Whether every span hangs on the caller's."""
    known = {CALLER, *(span.span_id for span in spans)}
    return bool(spans) and all(span.parent_id in known for span in spans)


def _goes_through_all(spans: Sequence[Span]) -> bool:
    """Follow the command from span to span: request, transaction, publication, application, and so on, to a webhook."""
    (request,) = _below(spans, CALLER)
    assert (request.name, request.kind) == ("POST /v1/agencies/{agency_id}/data-use-acceptances", "SERVER")
    assert request.attributes["http.response.status_code"] == 201
    (write,) = _below(spans, request.span_id, "write enrollment", "CLIENT")
    assert write.attributes["muster.agency_id"] == "NASA"
    _published(spans, write)
    billed = _applied_by("billing", spans, write)
    _published(spans, billed)
    for announced in (write, billed):
        recorded = _applied_by("notify", spans, announced)
        assert _below(spans, recorded.span_id, "deliver webhook", "CLIENT")
    return True


def _published(spans: Sequence[Span], write: Span) -> Span:
    """The publication of a transaction's events; of several topics at once, it names none."""
    published = _below(spans, write.span_id, kind="PRODUCER")
    assert published
    assert all((TRACE, write.span_id) in span.links for span in published)
    return published[0]


def _applied_by(service: str, spans: Sequence[Span], cause: Span) -> Span:
    """A service's transaction that applies what another one has published, and has led to a webhook or to events."""
    for applied in _below(spans, cause.span_id, kind="CONSUMER"):
        assert (TRACE, cause.span_id) in applied.links
        if str(applied.attributes["messaging.consumer.group.name"]).endswith(service):
            (write,) = _below(spans, applied.span_id, f"write {service}", "CLIENT")
            if _below(spans, write.span_id):
                return write
    raise AssertionError(f"{service} applies nothing below {cause.name}: {[(s.name, s.parent_id) for s in spans]}")


def _names_its_attempts(receiver: Receiver, collector: Collector) -> bool:
    """Whether each webhook of the command's events has named the span of its attempt in a header."""
    attempts = {f"00-{TRACE}-{span.span_id}-01" for span in _named(collector.of_trace(TRACE), "deliver webhook")}
    named = {
        request.headers["traceparent"]
        for request in receiver.requests
        if _event(request) in ("AgencyEnrolled", "InvoiceIssued")
    }
    return len(named) == 2 and named <= attempts


def _below(spans: Sequence[Span], parent_id: str, name: str | None = None, kind: str | None = None) -> list[Span]:
    """The spans directly below one."""
    return [
        span
        for span in spans
        if span.parent_id == parent_id and name in (None, span.name) and kind in (None, span.kind)
    ]


def _named(spans: Sequence[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def _event(request: Request) -> str:
    """The short name of a webhook's event."""
    return str(request.event["type"]).split(".")[2]
