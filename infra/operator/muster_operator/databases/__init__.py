"""Finds and creates what is missing of the services' databases, schemas, and roles."""
