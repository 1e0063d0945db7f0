"""Postgres: sessions and pools, the unit of work, and the migrations."""
