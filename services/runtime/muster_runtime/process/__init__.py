"""A service's process: what it starts, watches, and stops."""
