"""Checks that each service can connect to Kafka, has its ACLs, and finds its topics as the contracts describe them."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    TransactionalIdAuthorizationFailed,
)
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AclOperation

from muster_contracts import topics
from muster_operator.access.acls import Acl, Kind, Operation, acls_of_services, principal_of
from muster_operator.access.administrator import Administrator
from muster_operator.failures import BadInput, CommandFailed, Refused, Unreachable
from muster_operator.preflight.findings import Check, Finding
from muster_operator.preflight.subjects import Subject
from muster_operator.target import Target
from muster_operator.topic_plan import Remedy, plan
from muster_runtime.messaging.connection import CertificatesUnusable, KafkaConnection
from muster_runtime.messaging.kafka_topics import KafkaTopics, TopicFaults

APPLY = "muster topics apply"
GRANT = "muster topics apply --acls"
EVERY_BROKER = "let the pods reach every broker"
ADMINISTRATOR = "give this command an administrator's credentials"

_COORDINATED = {Kind.GROUP: CoordinationType.GROUP, Kind.TRANSACTIONAL_ID: CoordinationType.TRANSACTION}


async def check_kafka(subject: Subject) -> AsyncIterator[Finding]:
    """Check a service's connection, topics, and rights."""
    check = Check(subject.service, "kafka")
    settings = subject.settings
    if not settings.kafka_bootstrap:
        yield check.failed("MUSTER_KAFKA_BOOTSTRAP is not set", "name every broker: host:port, separated by commas")
        return
    kafka = KafkaConnection(settings)
    wanted = _rights(subject)
    of_topics = [acl for acl in wanted if acl.kind is Kind.TOPIC]
    # A service reads the settings of all its topics, except those of the sandbox's clock.
    checked = {
        acl.name.removeprefix(settings.topic_prefix) for acl in of_topics if acl.operation is Operation.DESCRIBE_CONFIGS
    }
    try:
        there = KafkaTopics(kafka, settings, subject.service, checked)
    except CertificatesUnusable as error:
        yield check.failed(str(error), "correct the paths")
        return
    try:
        await there.start()
        faults = await there.look()
        brokers = there.brokers
    except (KafkaError, OSError, TimeoutError) as error:
        reason = await kafka.failure(error)
        yield check.failed(f"{reason}, at {kafka.bootstrap}", "correct the address, the credentials, or the network")
        return
    finally:
        await there.stop()
    async for finding in check_brokers(check, kafka, brokers):
        yield finding
    found = list(_of_topics(Check(subject.service, "topics"), faults))
    for finding in found or [Check(subject.service, "topics").ok(f"all {len(checked)} are as described")]:
        yield finding
    known = {acl.name for acl in of_topics} - {*faults.missing, *faults.forbidden}
    yield await _of_rights(Check(subject.service, "kafka permissions"), kafka, wanted, known)


async def check_brokers(
    check: Check, kafka: KafkaConnection, brokers: Iterable[tuple[str, int]]
) -> AsyncIterator[Finding]:
    """Check that each of the brokers, given by host and port, can be reached, and ends a login in time."""
    logins = await kafka.logins(brokers)
    connects = "connects" if kafka.is_plain else f"connects as {kafka.user}"
    if logins.endless:
        stays = f"{connects}, and stays logged in if the user is revoked ({', '.join(logins.endless)})"
        yield check.warning(stays, "set connections.max.reauth.ms on the brokers, such as 3600000")
    else:
        yield check.ok(connects)
    if logins.unreachable:
        unchecked = f"not checked, because they cannot be reached: {', '.join(logins.unreachable)}"
        yield check.warning(unchecked, EVERY_BROKER)


def _rights(subject: Subject) -> Sequence[Acl]:
    settings = subject.settings
    sandbox = settings.environment == "sandbox"
    wanted = acls_of_services(topics().values(), prefix=settings.topic_prefix, sandbox=sandbox)
    return [acl for acl in wanted if acl.principal == principal_of(subject.service)]


def _of_topics(check: Check, faults: TopicFaults) -> Iterator[Finding]:
    if faults.missing:
        yield check.failed(f"missing: {', '.join(faults.missing)}", f"create them: {APPLY}")
    if faults.forbidden:
        yield check.failed(f"Kafka denies Describe on: {', '.join(faults.forbidden)}", GRANT)
    for reason in faults.repartitioned.values():
        yield check.failed(reason, "see the runbook topic-repartitioned.md")
    for loss in faults.losses:
        yield check.failed(f"events would be lost: {loss}", f"set it: {APPLY}")


async def _of_rights(check: Check, kafka: KafkaConnection, wanted: Sequence[Acl], known: Collection[str]) -> Finding:
    """Whether Kafka allows what the service does.

    Connects as the service, because Kafka shows a client only its own rights.
    """
    administrator = Administrator(kafka.librdkafka_options())
    lacking: list[str] = []
    try:
        described: dict[str, Any] = {}
        if known:
            named = TopicCollection(sorted(known))
            described = administrator.client.describe_topics(named, include_authorized_operations=True)
        for name, future in described.items():
            allowed = await _allowed(administrator, future)
            needed = [acl.operation for acl in wanted if acl.kind is Kind.TOPIC and acl.name == name]
            lacking += [f"{each} {name}" for each in needed if AclOperation[each.name] not in allowed]
        lacking += [f"{acl.operation} {acl.kind} {acl.name}" for acl in wanted if not await _may_use(kafka, acl)]
    except Unreachable as away:
        return check.failed(str(away), EVERY_BROKER)
    except (KafkaError, OSError) as error:
        return check.failed(await kafka.failure(error), EVERY_BROKER)
    if lacking:
        return check.failed(f"Kafka denies: {', '.join(sorted(lacking))}", GRANT)
    return check.ok("everything that the service needs")


async def _allowed(administrator: Administrator, description: Any) -> Collection[AclOperation]:
    """The operations that Kafka allows on a described topic; none if the client may not describe it."""
    try:
        return (await administrator.ask(description)).authorized_operations or ()
    except Refused:
        return ()


async def _may_use(kafka: KafkaConnection, acl: Acl) -> bool:
    """Whether the service may use its group or transactional ID, which may not exist yet.

    It only looks up their coordinator: using the ID would fence the running relay, and joining would rebalance.
    """
    kind = _COORDINATED.get(acl.kind)
    if kind is None:
        return True
    client = AIOKafkaClient(**kafka.options())
    try:
        await client.bootstrap()
        await client.coordinator_lookup(kind, acl.name)
    except (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed):
        return False
    except CoordinatorNotAvailableError:
        return True  # Kafka checks the ACL first
    finally:
        await client.close()
    return True


async def check_cluster(target: Target, *, sandbox: bool = False) -> AsyncIterator[Finding]:
    """Check all topics, including Kafka's internal ones, as far as this command's credentials allow."""
    check = Check("", "topics of the cluster")
    try:
        kafka = target.kafka
    except BadInput as error:
        yield check.warning(f"not checked: {error}", ADMINISTRATOR)
        return
    if not kafka.bootstrap:
        return
    try:
        found = await plan(kafka, target.topic_prefix, sandbox=sandbox)
    except (KafkaError, CommandFailed, OSError) as error:
        reason = await kafka.failure(error) if isinstance(error, KafkaError) else str(error)
        yield check.warning(f"not checked: {reason}", ADMINISTRATOR)
        return
    for each in found:
        grade = check.warning if each.remedy is Remedy.OTHERS else check.failed
        yield grade(f"{each.topic}: {each.what}", f"muster topics apply: {each.remedy}")
    if not found:
        yield check.ok("as described")
