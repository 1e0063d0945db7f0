"""The SQL of the write side: each function takes a connection whose transaction holds the agency's lock."""
