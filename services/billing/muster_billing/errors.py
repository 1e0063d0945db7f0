"""What billing refuses."""

from muster_runtime.errors import Conflict


class InvoiceNotPayable(Conflict):
    """The invoice is not issued yet, is void, or was paid already."""

    slug = "invoice-not-payable"
    title = "The invoice cannot be paid"


class RenewalClosed(Conflict):
    """The offer was decided otherwise, was withdrawn, or its time is over."""

    slug = "renewal-closed"
    title = "The renewal offer is closed"
