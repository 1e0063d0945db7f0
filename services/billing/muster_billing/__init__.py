"""Terms, invoices, payments and renewals, in a double-entry ledger."""
