"""The exit statuses of a command, and the errors that lead to them."""

FAILED = 1
BAD_INPUT = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
TIMED_OUT = 6


class CommandFailed(Exception):
    """A command failed. The message is one line for people."""

    exit_code = FAILED


class BadInput(CommandFailed):
    """An argument, an option, or an environment variable cannot be used."""

    exit_code = BAD_INPUT


class NotFound(CommandFailed):
    """Nothing has the given name."""

    exit_code = NOT_FOUND


class Refused(CommandFailed):
    """A service or a server refused a request; the message is the problem's."""

    exit_code = REFUSED


class Unreachable(CommandFailed):
    """A service or a server does not answer."""

    exit_code = UNREACHABLE


class TimedOut(CommandFailed):
    """What the command waited for did not happen in time."""

    exit_code = TIMED_OUT
