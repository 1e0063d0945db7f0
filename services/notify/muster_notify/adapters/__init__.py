"""Outbound I/O: the mail server, webhooks, name resolution, and the vault of secrets."""
