"""Postgres: sessions and pools, the unit of work with its outbox, wake-ups, and migrations."""
