"""The errors of billing."""

from muster_runtime.errors import Conflict


class InvoiceNotPayable(Conflict):
    """The invoice is not issued yet, is void, or is already paid."""

    slug = "invoice-not-payable"
    title = "The invoice cannot be paid"


class RenewalClosed(Conflict):
    """The offer was decided differently or withdrawn, or its deadline has passed."""

    slug = "renewal-closed"
    title = "The renewal offer is closed"
