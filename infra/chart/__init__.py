"""Generates what Muster's chart derives from the code and from values.yaml."""
