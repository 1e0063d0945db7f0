"""One function per command, event and deadline."""
