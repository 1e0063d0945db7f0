"""`muster audit`: verifies the audit trails against their seals, exports them, and lists reads of personal data."""
