"""The programs outside Muster that read its topics, or write one of their own: a registry, kept as a file."""
