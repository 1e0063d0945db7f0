"""The process of a service: what it starts, watches, and stops."""

from muster_runtime.process.roles import ALL_ROLES, Role, parse_roles
from muster_runtime.process.running import Process, application, collect_garbage_rarely, running
from muster_runtime.process.start_checks import StartRefused

__all__ = [
    "ALL_ROLES",
    "Process",
    "Role",
    "StartRefused",
    "application",
    "collect_garbage_rarely",
    "parse_roles",
    "running",
]
