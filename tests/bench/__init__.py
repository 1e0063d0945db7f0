"""Benchmarks on real servers: each prints ours, a limit measured in the same run, and their ratio. No verdicts."""
