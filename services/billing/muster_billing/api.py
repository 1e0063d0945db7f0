"""The routes of billing: decode and delegate."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from muster_billing.commands import DecideRenewal, RecordPayment
from muster_billing.domain import MAX_MINOR, Money
from muster_billing.errors import InvoiceNotPayable, RenewalClosed
from muster_billing.handlers import invoices, renewals
from muster_billing.queries import lists, reports
from muster_billing.replies import (
    ForecastReply,
    InvoiceReply,
    PaymentReply,
    ReconciliationReply,
    RenewalReply,
    TermReply,
    TransactionReply,
)
from muster_contracts import AgencyId
from muster_contracts.billing import RenewalDecision
from muster_runtime.http.application import CommandsDep, PageDep, ReaderDep, RequestBody, requires, requires_program
from muster_runtime.http.problem_responses import COMMON, problem_responses
from muster_runtime.pagination import Page

router = APIRouter(prefix="/v1", tags=["billing"], responses=COMMON)

READ = requires("billing:read")
WRITE = requires("billing:write")
# The program records what it received; the payer does not.
RECEIVE = requires_program("billing:receive")
OPERATE = requires("billing:operate")

InvoiceId = Annotated[str, Path(pattern=r"^inv_[0-9a-f]{32}$")]
RenewalId = Annotated[str, Path(pattern=r"^ren_[0-9a-f]{32}$")]


class Amount(RequestBody):
    """An amount in minor units of a currency, such as cents for USD. It must be an integer."""

    amount_minor: int = Field(strict=True, gt=0, le=MAX_MINOR, examples=[100])
    currency: str = Field(pattern=r"^[A-Z]{3}$", examples=["USD"])


class PaymentRequest(RequestBody):
    """A payment of an invoice."""

    amount: Amount
    reference: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="The payer's own reference, such as a Treasury schedule number.",
    )


class DecisionRequest(RequestBody):
    """The agency's decision on a renewal offer."""

    decision: RenewalDecision


@router.get("/agencies/{agency_id}/terms", summary="List an agency's terms", dependencies=[READ])
async def list_terms(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[TermReply]:
    async with reader.read(agency_id) as connection:
        return await lists.list_terms(connection, agency_id, page)


@router.get("/agencies/{agency_id}/invoices", summary="List an agency's invoices", dependencies=[READ])
async def list_invoices(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[InvoiceReply]:
    async with reader.read(agency_id) as connection:
        return await lists.list_invoices(connection, agency_id, page)


@router.get("/agencies/{agency_id}/renewals", summary="List an agency's renewal offers", dependencies=[READ])
async def list_renewals(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[RenewalReply]:
    async with reader.read(agency_id) as connection:
        return await lists.list_renewals(connection, agency_id, page)


@router.get("/agencies/{agency_id}/ledger", summary="List an agency's ledger transactions", dependencies=[READ])
async def list_ledger(agency_id: AgencyId, reader: ReaderDep, page: PageDep) -> Page[TransactionReply]:
    async with reader.read(agency_id) as connection:
        return await lists.list_transactions(connection, agency_id, page)


@router.post(
    "/agencies/{agency_id}/invoices/{invoice_id}/payments",
    summary="Record a payment",
    status_code=201,
    response_model=PaymentReply,
    dependencies=[RECEIVE],
    responses=problem_responses(InvoiceNotPayable),
)
async def record_payment(
    agency_id: AgencyId, invoice_id: InvoiceId, request: PaymentRequest, commands: CommandsDep
) -> Response:
    """A payment must match the invoice's amount and currency exactly."""
    command = RecordPayment(
        agency_id=agency_id,
        invoice_id=invoice_id,
        amount=Money(request.amount.amount_minor, request.amount.currency),
        reference=request.reference,
    )
    return await commands.execute(agency_id, partial(invoices.record_payment, command=command), status_code=201)


@router.post(
    "/agencies/{agency_id}/renewals/{renewal_id}/decision",
    summary="Accept or decline a renewal offer",
    response_model=RenewalReply,
    dependencies=[WRITE],
    responses=problem_responses(RenewalClosed),
)
async def decide_renewal(
    agency_id: AgencyId, renewal_id: RenewalId, request: DecisionRequest, commands: CommandsDep
) -> Response:
    """Sending the same decision again changes nothing."""
    command = DecideRenewal(agency_id=agency_id, renewal_id=renewal_id, decision=request.decision)
    return await commands.execute(agency_id, partial(renewals.decide_renewal, command=command))


@router.get("/reconciliation", summary="Reconcile terms, invoices, and the ledger", dependencies=[OPERATE])
async def reconcile(reader: ReaderDep) -> ReconciliationReply:
    """Every list is empty if the books agree. A token for specific agencies sees only theirs."""
    async with reader.read_own() as connection:
        return await reports.reconcile(connection)


@router.get("/forecast", summary="Forecast a fiscal year's renewals", dependencies=[OPERATE])
async def forecast(
    reader: ReaderDep,
    fiscal_year: Annotated[
        int, Query(ge=2000, le=9999, description="The federal fiscal year; it starts on October 1 of the prior year.")
    ],
) -> ForecastReply:
    async with reader.read_own() as connection:
        return await reports.forecast(connection, fiscal_year)
