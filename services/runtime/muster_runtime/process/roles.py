"""The roles that a process of a service can have."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster_runtime.service import Service

# The name that stands for every role.
ALL = "all"


class Role(StrEnum):
    """A part of a service; one process may run all of them."""

    API = "api"
    RELAY = "relay"
    CONSUMER = "consumer"
    SCHEDULER = "scheduler"  # deadlines, deletions, and seals
    WORKER = "worker"  # the service's own long-running duties
    OPERATIONS = "operations"  # only the operators' routes: for work during which everything else is stopped


ALL_ROLES = frozenset(Role)


def needed_roles(service: "Service") -> list[Role]:
    """The roles for which a service has work: without a process of each, some of it stays undone."""
    work = {
        Role.API: True,
        Role.CONSUMER: bool(service.subscriptions),
        Role.RELAY: bool(service.produces),
        Role.SCHEDULER: True,  # each has expired rows to delete
        Role.WORKER: bool(service.workers),
    }
    return [role for role, exists in work.items() if exists]


def parse_roles(names: Sequence[str]) -> frozenset[Role]:
    """Parse role names; `all` means every role. Raises ValueError for an unknown name."""
    return ALL_ROLES if ALL in names else frozenset(Role(name) for name in names)
