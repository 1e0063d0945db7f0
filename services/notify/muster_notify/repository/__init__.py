"""The SQL of the write side."""
