"""`muster preflight`: what would fail in an installation, before it is made or replaced."""
