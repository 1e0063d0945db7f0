"""One function per command and event; each is one transaction's work."""
