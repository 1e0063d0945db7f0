"""The exit statuses of all commands, the services' and the operator's (docs/cli.md)."""

FAILED = 1
BAD_INPUT = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
TIMED_OUT = 6
