"""One function per command, event and deadline. Each runs in one transaction under the agency's lock."""
