"""`muster preflight`: finds what would fail, before an installation or an upgrade."""
