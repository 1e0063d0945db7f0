"""The `muster` command, and what an operator does with a Muster that serves."""
