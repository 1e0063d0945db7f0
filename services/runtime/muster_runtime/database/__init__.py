"""Postgres: sessions and pools, the unit of work with its outbox, what wakes a waiting duty, and the migrations."""
