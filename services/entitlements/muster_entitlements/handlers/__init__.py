"""One function per command, event, and deadline; each is one transaction's work."""
