"""Finds and creates missing databases, schemas, and roles of the services."""
