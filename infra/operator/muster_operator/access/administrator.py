"""Reads and changes Kafka's ACLs and its users with SCRAM-SHA-512 passwords."""

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
from muster_operator.failures import CommandFailed, Refused, Unreachable

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

# Also if a broker refuses the login, or one side does not accept the other's certificate, no broker answers.
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError._SSL)


class WithoutAcls(Refused):
    """The cluster has no authorizer, so it has no ACLs, and everybody may do everything."""


class Administrator:
    """An administrator's connection to a cluster; `options` are librdkafka's.

    Every method raises Unreachable if no broker answers, and Refused if the cluster refuses.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._noted: KafkaError | None = None
        quiet: dict[str, Any] = {"socket.timeout.ms": round(_SECONDS * 1000), "log_level": 0, "error_cb": self._note}
        self.client: Any = AdminClient({**options, **quiet})

    async def acls(self) -> set[Acl]:
        """Every ACL in the cluster, except those for delegation tokens."""
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
        """Add ACLs; existing ones stay. Raises WithoutAcls."""
        await self._each(self.client.create_acls([_binding(acl) for acl in acls]) if acls else {})

    async def remove(self, acls: Collection[Acl]) -> None:
        """Remove ACLs; a missing one is not an error."""
        filters = [_filter(acl) for acl in acls]
        await self._each(self.client.delete_acls(filters) if filters else {})

    async def has_user(self, name: str) -> bool:
        """Whether a user with this name has a password."""
        await self._require_sight()
        try:
            await self.ask(self.client.describe_user_scram_credentials([name])[name])
        except Refused as refused:
            if _is_about_nobody(refused):
                return False
            raise
        return True

    async def set_password(self, name: str, password: str) -> None:
        """Create a user, or replace the user's password."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        change = UserScramCredentialUpsertion(name, credential, password.encode())
        await self._each(self.client.alter_user_scram_credentials([change]))

    async def remove_user(self, name: str) -> None:
        """Remove a user's password; a missing user is not an error. Existing connections stay until they end."""
        change = UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512)
        try:
            await self._each(self.client.alter_user_scram_credentials([change]))
        except Refused as refused:
            if not _is_about_nobody(refused):
                raise

    async def _require_sight(self) -> None:
        """Raise Refused if the user may not list ACLs and users.

        Without that right, the client would report none, or crash.
        """
        cluster = await self.ask(self.client.describe_cluster(include_authorized_operations=True))
        if AclOperation.DESCRIBE not in (cluster.authorized_operations or ()):
            raise Refused(
                "Kafka refused: listing ACLs and users needs Describe on the cluster, an administrator's right"
            )

    async def _each(self, futures: Mapping[Any, Any]) -> None:
        for future in futures.values():
            await self.ask(future)

    async def ask(self, future: Any) -> Any:
        """Wait for the result of a client's request."""
        try:
            async with asyncio.timeout(_SECONDS * 2):
                return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise self.failure(error) from error
        except TimeoutError:
            raise self._without_answer("it does not answer") from None

    def failure(self, error: KafkaException) -> CommandFailed:
        """The error that says why a request failed."""
        if _code(error) in _ANSWERED_NOT:
            return self._without_answer(error.args[0].str())
        if _code(error) == KafkaError.SECURITY_DISABLED:
            return WithoutAcls(
                "this Kafka has no ACLs, so every program may read and write its topics "
                "(`muster up --secure --home DIR` starts a stack that has them)"
            )
        return Refused(f"Kafka refused: {error.args[0].str()}")

    def _without_answer(self, reason: str) -> CommandFailed:
        """The error for a request that no broker answered: `reason` is the client's, unless it noted a better one."""
        self.client.poll(0)  # runs _note
        if self._noted is None:
            return Unreachable(f"Kafka cannot be reached: {reason}")
        if self._noted.code() in _REFUSED:
            return Refused(f"Kafka refused: {self._noted.str()}")
        return Unreachable(f"Kafka cannot be reached: {self._noted.str()}")

    def _note(self, error: KafkaError) -> None:
        """Remember why no broker answers; "all brokers down" is only a consequence."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._noted = error


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _is_about_nobody(refused: Refused) -> bool:
    """Whether Kafka refused because the user does not exist."""
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
    """A filter that matches only this ACL."""
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
