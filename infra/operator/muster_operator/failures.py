"""What an operator's command ends with: the exit statuses, and the errors that lead to them."""

FAILED = 1
BAD_INPUT = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
TIMED_OUT = 6


class CommandFailed(Exception):
    """A command cannot be done. The message is one line for people."""

    exit_code = FAILED


class BadInput(CommandFailed):
    """What the command was given, or the environment names, cannot be used."""

    exit_code = BAD_INPUT


class NotFound(CommandFailed):
    """What was named does not exist."""

    exit_code = NOT_FOUND


class Refused(CommandFailed):
    """A service or a server refused a request; the message is the problem's."""

    exit_code = REFUSED


class Unreachable(CommandFailed):
    """A service or a server does not answer."""

    exit_code = UNREACHABLE


class TimedOut(CommandFailed):
    """What was waited for did not come in time."""

    exit_code = TIMED_OUT
