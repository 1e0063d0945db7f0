"""The errors that end a command, each with its exit status."""

from muster_runtime.exit_statuses import BAD_INPUT, FAILED, NOT_FOUND, REFUSED, TIMED_OUT, UNREACHABLE


class CommandFailed(Exception):
    """A command failed. The message is one line."""

    exit_code = FAILED


class BadInput(CommandFailed):
    """An argument, an option, or an environment variable cannot be used."""

    exit_code = BAD_INPUT


class NotFound(CommandFailed):
    """Nothing with the given name exists."""

    exit_code = NOT_FOUND


class Refused(CommandFailed):
    """A service or a server refused a request; the message says why."""

    exit_code = REFUSED


class Unreachable(CommandFailed):
    """A service or a server does not answer."""

    exit_code = UNREACHABLE


class TimedOut(CommandFailed):
    """What the command waited for did not happen in time."""

    exit_code = TIMED_OUT
