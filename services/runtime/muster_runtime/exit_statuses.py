"""The exit statuses of all commands, the services' and the operator's (docs/cli.md)."""

FAILED = 1
BAD_INPUT = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
TIMED_OUT = 6


class CommandFailed(Exception):
    """A service's command failed. The message is one line for users."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
