"""`python -m muster_operator` is the `muster` command."""

from muster_operator.cli import main

main()
