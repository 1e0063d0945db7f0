"""Kafka's own records of who may do what: ACLs, and the users who log in with SCRAM-SHA-512."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from muster_operator.access.acls import Acl, Kind, Operation
from muster_operator.failures import Refused, Unreachable

_KINDS = {
    Kind.TOPIC: ResourceType.TOPIC,
    Kind.GROUP: ResourceType.GROUP,
    Kind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    Kind.CLUSTER: ResourceType.BROKER,  # the client's name for it
}
_OPERATIONS = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.CREATE: AclOperation.CREATE,
    Operation.DELETE: AclOperation.DELETE,
    Operation.ALTER: AclOperation.ALTER,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
    Operation.CLUSTER_ACTION: AclOperation.CLUSTER_ACTION,
    Operation.DESCRIBE_CONFIGS: AclOperation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS: AclOperation.ALTER_CONFIGS,
    Operation.IDEMPOTENT_WRITE: AclOperation.IDEMPOTENT_WRITE,
    Operation.ALL: AclOperation.ALL,
}
_PATTERNS = {True: ResourcePatternType.PREFIXED, False: ResourcePatternType.LITERAL}
_PERMISSIONS = {True: AclPermissionType.ALLOW, False: AclPermissionType.DENY}

_KIND_OF = {value: kind for kind, value in _KINDS.items()}
_OPERATION_OF = {value: operation for operation, value in _OPERATIONS.items()}

_ITERATIONS = 8192
_SECONDS = 15.0

_ANSWERED_NOT = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._RESOLVE,
)


class Administrator:
    """An administrator's connection to a cluster; `options` are those of librdkafka.

    Every method raises Unreachable if no broker answers, and Refused if the cluster refuses.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._reason = ""
        quiet: dict[str, Any] = {"socket.timeout.ms": round(_SECONDS * 1000), "log_level": 0, "error_cb": self._note}
        self.client: Any = AdminClient({**options, **quiet})

    async def acls(self) -> set[Acl]:
        """Every ACL of the cluster, but for those about Kafka's delegation tokens."""
        anything: Any = None
        every = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        await self._require_sight()
        return {_acl(binding) for binding in await self.ask(self.client.describe_acls(every)) if _is_known(binding)}

    async def add(self, acls: Collection[Acl]) -> None:
        """Add ACLs; one that is there already stays."""
        await self._each(self.client.create_acls([_binding(acl) for acl in acls]) if acls else {})

    async def remove(self, acls: Collection[Acl]) -> None:
        """Remove ACLs; one that is gone already is no error."""
        filters = [_filter(acl) for acl in acls]
        await self._each(self.client.delete_acls(filters) if filters else {})

    async def has_user(self, name: str) -> bool:
        """Whether a user of this name can log in with a password."""
        await self._require_sight()
        try:
            await self.ask(self.client.describe_user_scram_credentials([name])[name])
        except Refused as refused:
            if _is_about_nobody(refused):
                return False
            raise
        return True

    async def set_password(self, name: str, password: str) -> None:
        """Make a user, or give the user another password."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        change = UserScramCredentialUpsertion(name, credential, password.encode())
        await self._each(self.client.alter_user_scram_credentials([change]))

    async def remove_user(self, name: str) -> None:
        """Let a user log in no more; it is no error if there is none. A login that lasts stays until it ends."""
        change = UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512)
        try:
            await self._each(self.client.alter_user_scram_credentials([change]))
        except Refused as refused:
            if not _is_about_nobody(refused):
                raise

    async def _require_sight(self) -> None:
        """Raise Refused unless ACLs and users may be seen: the client answers that there is none, or even crashes."""
        cluster = await self.ask(self.client.describe_cluster(include_authorized_operations=True))
        if AclOperation.DESCRIBE not in (cluster.authorized_operations or ()):
            raise Refused("Kafka refused: to see ACLs and users needs Describe on the cluster, as an administrator has")

    async def _each(self, futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            await self.ask(future)

    async def ask(self, future: Any) -> Any:
        """What a request of the client's is answered."""
        try:
            async with asyncio.timeout(_SECONDS * 2):
                return await asyncio.wrap_future(future)
        except KafkaException as error:
            if _code(error) in _ANSWERED_NOT:
                self.client.poll(0)  # the client notes here why it could not connect
                raise Unreachable(f"Kafka cannot be reached: {self._reason or error.args[0].str()}") from error
            raise Refused(f"Kafka refused: {error.args[0].str()}") from error
        except TimeoutError:
            raise Unreachable("Kafka cannot be reached: it does not answer") from None

    def _note(self, error: KafkaError) -> None:
        """Keep why a broker cannot be connected to; that all of them cannot follows from it."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._reason = error.str()


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _is_about_nobody(refused: Refused) -> bool:
    """Whether Kafka refused because there is no such user."""
    cause = refused.__cause__
    return isinstance(cause, KafkaException) and _code(cause) == KafkaError.RESOURCE_NOT_FOUND


def _is_known(binding: Any) -> bool:
    return binding.restype in _KIND_OF and binding.operation in _OPERATION_OF


def _acl(binding: Any) -> Acl:
    return Acl(
        binding.principal,
        _KIND_OF[binding.restype],
        binding.name,
        _OPERATION_OF[binding.operation],
        prefixed=binding.resource_pattern_type is ResourcePatternType.PREFIXED,
        allow=binding.permission_type is AclPermissionType.ALLOW,
        host=binding.host,
    )


def _binding(acl: Acl) -> AclBinding:
    return AclBinding(*_parts(acl))


def _filter(acl: Acl) -> AclBindingFilter:
    """What finds this ACL, and no other."""
    return AclBindingFilter(*_parts(acl))


def _parts(acl: Acl) -> tuple[Any, ...]:
    return (
        _KINDS[acl.kind],
        acl.name,
        _PATTERNS[acl.prefixed],
        acl.principal,
        acl.host,
        _OPERATIONS[acl.operation],
        _PERMISSIONS[acl.allow],
    )
