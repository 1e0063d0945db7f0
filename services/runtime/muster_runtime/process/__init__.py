"""The process of a service: what it starts, watches, and stops."""
