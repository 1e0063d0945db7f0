"""The `muster` command, which operates a running Muster."""
