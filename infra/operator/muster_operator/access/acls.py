"""What each identity may do on Kafka: access control lists (ACLs), derived from the topics' files. Pure.

Kafka denies whatever no ACL allows. Read and Write imply Describe, and Write on a topic implies the right to an
idempotent producer's ID, so neither is listed.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from muster_contracts import Topic
from muster_contracts.topics import SERVICES

# The owner of the sandbox's clock topic, which production does not have.
SANDBOX = "sandbox"

# The template that turns an identity's name into a Kafka principal.
PRINCIPAL = "User:{name}"


class Kind(StrEnum):
    """The type of an ACL's resource."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"
    CLUSTER = "cluster"


class Operation(StrEnum):
    """An operation on a resource, spelled as Kafka's own tools spell it."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    ALTER = "Alter"
    DESCRIBE = "Describe"
    CLUSTER_ACTION = "ClusterAction"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    ALTER_CONFIGS = "AlterConfigs"
    IDEMPOTENT_WRITE = "IdempotentWrite"
    ALL = "All"


@dataclass(frozen=True, order=True, slots=True)
class Acl:
    """A principal's right to an operation on the resource `name`; if `prefixed`, on all whose names start with it.

    Without `allow`, the ACL denies the operation. Muster creates no such ACL, and none for a single `host`.
    """

    principal: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False
    allow: bool = True
    host: str = "*"

    def __str__(self) -> str:
        verb = "may" if self.allow else "must not"
        where = "" if self.host == "*" else f" from {self.host}"
        return f"{self.principal} {verb} {self.operation} {self.kind} {self.name}{'…' if self.prefixed else ''}{where}"

    def covers(self, name: str) -> bool:
        """Whether it applies to the resource with this name."""
        return name.startswith(self.name) if self.prefixed else self.name in (name, "*")


def principal_of(name: str, template: str = PRINCIPAL) -> str:
    """The Kafka principal of a service or subscriber."""
    return template.replace("{name}", name)


def acls_of_services(
    topics: Iterable[Topic], *, prefix: str = "", principal: str = PRINCIPAL, sandbox: bool = False
) -> list[Acl]:
    """The ACLs that the services need, and no more: one principal each.

    `prefix` starts the names of topics, groups, and transactional IDs. `sandbox` adds the ACLs for the clock's topic.
    """
    return sorted(set(_of_services(list(topics), prefix, principal, sandbox=sandbox)))


def _of_services(topics: list[Topic], prefix: str, principal: str, *, sandbox: bool) -> Iterator[Acl]:
    for topic in topics:
        is_clock = topic.owner == SANDBOX
        if is_clock and not sandbox:
            continue
        owner, name = principal_of(topic.owner, principal), prefix + topic.name
        if topic.producers == "owner":
            yield from produces(owner, topic, prefix, topic.owner)
        if not is_clock:
            # An owner also reads its own topics: their ends show whether its database has lost commits.
            yield from _uses(owner, name)
        for reader in topic.readers:
            who = principal_of(reader, principal)
            if is_clock:
                yield Acl(who, Kind.TOPIC, name, Operation.READ)  # it reads the clock without a group
                continue
            yield from _uses(who, name)
            yield Acl(who, Kind.GROUP, prefix + reader, Operation.READ)


def _uses(principal: str, topic: str) -> Iterator[Acl]:
    """The ACLs to read a topic and its settings: a service checks that its topics cannot lose events."""
    yield Acl(principal, Kind.TOPIC, topic, Operation.READ)
    yield Acl(principal, Kind.TOPIC, topic, Operation.DESCRIBE_CONFIGS)


def produces(principal: str, topic: Topic, prefix: str, name: str) -> Iterator[Acl]:
    """The ACLs of a topic's writer. A transactional ID fences the writers of a compacted topic."""
    yield Acl(principal, Kind.TOPIC, prefix + topic.name, Operation.WRITE)
    if topic.compacted:
        yield Acl(principal, Kind.TRANSACTIONAL_ID, fence_of(prefix, name), Operation.WRITE)


def fence_of(prefix: str, name: str) -> str:
    """The transactional ID with which a producer's processes fence each other; a service's relay uses it."""
    return f"{prefix}{name}-relay"


def acls_of_subscriber(
    name: str,
    topics: Iterable[Topic],
    produced: Iterable[Topic] = (),
    *,
    prefix: str = "",
    principal: str = PRINCIPAL,
) -> list[Acl]:
    """The ACLs of a program outside Muster. It reads topics in groups whose names start with `name.`."""
    who = principal_of(name, principal)
    read = [Acl(who, Kind.TOPIC, prefix + topic.name, Operation.READ) for topic in topics]
    groups = [Acl(who, Kind.GROUP, f"{prefix}{name}.", Operation.READ, prefixed=True)] if read else []
    written = [acl for topic in produced for acl in produces(who, topic, prefix, name)]
    return sorted({*read, *groups, *written})


class Remedy(StrEnum):
    """What `apply` does about a difference."""

    ADD = "add it"
    PRUNE = "with --prune, remove it"
    PERSON = "nothing: change it yourself"
    OTHERS = "nothing: another release may need it"
    REGISTERED = "nothing; pass --subscribers to compare it with the registered subscribers"


@dataclass(frozen=True, slots=True)
class AclDifference:
    """An ACL that is missing, or that nothing in this release needs."""

    acl: Acl
    what: str
    remedy: Remedy


def compare(
    wanted: Collection[Acl],
    there: Collection[Acl],
    topics: Iterable[Topic],
    *,
    prefix: str = "",
    principal: str = PRINCIPAL,
    registered: bool = False,
) -> list[AclDifference]:
    """The differences between a cluster's ACLs and the wanted ones, as far as they concern Muster.

    Extra ACLs on Muster's own topics, groups, and IDs can be pruned. A service's on those of a release with another
    prefix are left to that release, whose services have the same principals. An ACL that also covers other programs'
    resources is left to a person, and so is a service's on any other resource. Unless `wanted` includes the
    `registered` subscribers, other principals' ACLs are left to a person too: `wanted` does not say who subscribes.
    """
    services = {principal_of(name, principal) for name in (*SERVICES, SANDBOX)}
    owned = _Owned([prefix + topic.name for topic in topics], prefix)
    found = [AclDifference(acl, "missing", Remedy.ADD) for acl in sorted(set(wanted) - set(there))]
    for acl in sorted(set(there) - set(wanted)):
        if acl.principal in services:
            what = "beyond what the service needs"
            if owned.holds(acl):
                found.append(AclDifference(acl, what, Remedy.PRUNE))
            elif _is_of_another_release(acl):
                found.append(AclDifference(acl, "of a release with another prefix", Remedy.OTHERS))
            else:
                found.append(AclDifference(acl, what, Remedy.PERSON))
        elif owned.holds(acl):
            what = "no registered subscriber needs it" if registered else "does not belong to a service"
            found.append(AclDifference(acl, what, Remedy.PRUNE if registered else Remedy.REGISTERED))
        elif owned.is_reached_by(acl):
            found.append(AclDifference(acl, "also covers other programs' resources", Remedy.PERSON))
    return found


@dataclass(frozen=True, slots=True)
class _Owned:
    """Muster's resources on a cluster: its topics, any other topic named `muster.…`, its groups, and its IDs."""

    topics: list[str]
    prefix: str

    def holds(self, acl: Acl) -> bool:
        """Whether an ACL covers only Muster's resources."""
        if acl.kind is Kind.TOPIC:
            return acl.name.startswith(f"{self.prefix}muster.")
        return acl.name in _groups_or_fences(acl.kind, self.prefix)

    def is_reached_by(self, acl: Acl) -> bool:
        """Whether an ACL covers any of Muster's resources."""
        names = self.topics if acl.kind is Kind.TOPIC else _groups_or_fences(acl.kind, self.prefix)
        return any(map(acl.covers, names))


def _is_of_another_release(acl: Acl) -> bool:
    """Whether an ACL outside this release covers one resource with a name that another prefix gives it."""
    if acl.prefixed:
        return False
    if acl.kind is Kind.TOPIC:
        return "muster." in acl.name
    return acl.name.endswith(tuple(_groups_or_fences(acl.kind, "")))


def _groups_or_fences(kind: Kind, prefix: str) -> list[str]:
    """The services' groups or transactional IDs; none for another kind."""
    if kind is Kind.GROUP:
        return [prefix + service for service in SERVICES]
    return [fence_of(prefix, service) for service in SERVICES] if kind is Kind.TRANSACTIONAL_ID else []
