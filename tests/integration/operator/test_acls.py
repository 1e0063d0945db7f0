"""Who may do what on a real, secured Kafka: each identity does all that it needs, and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from muster_contracts import SERVICES
from muster_operator.access.acls import (
    Acl,
    Kind,
    Operation,
    acls_of_subscriber,
    fence_of,
    principal_of,
)
from muster_operator.access.administrator import Administrator
from muster_operator.access.application import Access, applied
from muster_operator.failures import Refused
from tests.support.eventually import eventually
from tests.support.kafka_house import FACTS, House, furnished
from tests.support.kafka_identities import Identity
from tests.support.secured_kafka import SecuredKafka

TOPIC_REFUSED, GROUP_REFUSED, FENCE_REFUSED = (
    f"{kind}_AUTHORIZATION_FAILED" for kind in ("TOPIC", "GROUP", "TRANSACTIONAL_ID")
)
CLUSTER_REFUSED = "CLUSTER_AUTHORIZATION_FAILED"

PUBLIC = [topic for topic in FACTS.values() if topic.access == "public"]


@pytest.fixture
async def house(secured: SecuredKafka, topic_prefix: str) -> House:
    return await furnished(secured, topic_prefix)


async def test_a_service_writes_its_topics_reads_what_it_declares_and_does_nothing_else(house: House) -> None:
    names, prefix = house.names, house.prefix
    people = {service: await house.identity(service) for service in SERVICES}

    def try_all(service: str, identity: Identity) -> None:
        facts = [name for name, topic in names.items() if not topic.compacted]
        compacted = [name for name in names if name not in facts]
        own = {name for name, topic in names.items() if topic.owner == service}
        read = own | {name for name, topic in names.items() if service in topic.readers}

        assert identity.write(facts) == {name: "" if name in own else TOPIC_REFUSED for name in facts}
        fence = fence_of(prefix, service)
        if fenced := [name for name in compacted if name in own]:
            assert identity.write(fenced, fence) == dict.fromkeys(fenced, "")
        else:
            assert identity.write(compacted[:1], fence) == {compacted[0]: FENCE_REFUSED}
        assert identity.write([name for name in compacted if name not in own]) == {
            name: TOPIC_REFUSED for name in compacted if name not in own
        }
        for other in SERVICES:
            if other != service:
                assert set(identity.write(compacted[:1], fence_of(prefix, other)).values()) == {FENCE_REFUSED}
        assert read == {name for name in names if identity.look(name) == ""}

    def read_all(service: str, identity: Identity) -> None:
        read = {name for name, topic in names.items() if service in (topic.owner, *topic.readers)}
        assert identity.read(names) == {name: "" if name in read else TOPIC_REFUSED for name in names}
        some = sorted(name for name in read if not names[name].compacted)[0]
        assert identity.join(prefix + service, some) == ""
        others = [*(prefix + other for other in SERVICES if other != service), f"{prefix}{service}-2", service]
        assert {group: identity.join(group, some) for group in others} == dict.fromkeys(others, GROUP_REFUSED)

    await asyncio.gather(*(asyncio.to_thread(try_all, *each) for each in people.items()))
    # Each topic has a record now.
    await asyncio.gather(*(asyncio.to_thread(read_all, *each) for each in people.items()))


def admin_requests(prefix: str) -> dict[str, Callable[[Any], Any]]:
    """The requests that only an administrator may make, by name."""
    seat = f"{prefix}muster.entitlements.seat"
    anything: Any = None
    every = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY, AclPermissionType.ANY
    )
    open_door = AclBinding(
        ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:*", "*", AclOperation.ALL, AclPermissionType.ALLOW
    )
    forever = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, seat, incremental_configs=[forever])
    user = UserScramCredentialUpsertion("admin", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"mine")
    return {
        "create": lambda admin: admin.create_topics([NewTopic(f"{prefix}muster.new.topic", 1, 1)]),
        "create by a prefix of its own": lambda admin: admin.create_topics([NewTopic(f"{prefix}new", 1, 1)]),
        "delete": lambda admin: admin.delete_topics([seat]),
        "grow": lambda admin: admin.create_partitions([NewPartitions(seat, 2)]),
        "alter": lambda admin: admin.incremental_alter_configs([altered]),
        "make ACLs": lambda admin: admin.create_acls([open_door]),
        "delete ACLs": lambda admin: admin.delete_acls([every]),
        "make users": lambda admin: admin.alter_user_scram_credentials([user]),
        "delete a group": lambda admin: admin.delete_consumer_groups([f"{prefix}billing"]),
    }


async def test_a_subscriber_reads_public_topics_in_groups_of_its_name_and_does_nothing_else(house: House) -> None:
    names, prefix = house.names, house.prefix
    owners = {service: await house.identity(service) for service in SERVICES}
    for name, topic in names.items():
        fence = fence_of(prefix, topic.owner) if topic.compacted else None
        assert await asyncio.to_thread(owners[topic.owner].write, [name], fence) == {name: ""}
    subscriber = "dash"
    own = acls_of_subscriber(subscriber, PUBLIC, prefix=prefix, principal=house.principal)
    await house.administrator.add(own)

    async def known() -> bool:
        return set(own) <= await house.administrator.acls()

    await eventually(known)
    identity = await house.identity(subscriber)

    def try_all() -> None:
        public = {name for name, topic in names.items() if topic.access == "public"}
        assert identity.read(names) == {name: "" if name in public else TOPIC_REFUSED for name in names}
        # A client that may write to no topic gets no idempotent producer's id either.
        assert identity.write(names) == dict.fromkeys(names, CLUSTER_REFUSED)
        assert identity.write(names, idempotent=False) == dict.fromkeys(names, TOPIC_REFUSED)
        some = min(public)
        assert identity.join(f"{prefix}{subscriber}.main", some) == ""
        others = [f"{prefix}notify", f"{prefix}{subscriber}", f"{subscriber}.main", f"{prefix}{subscriber}-2.main"]
        assert {group: identity.join(group, some) for group in others} == dict.fromkeys(others, GROUP_REFUSED)
        for who in (identity, owners["notify"]):
            refusals = {name: who.administer(ask) for name, ask in admin_requests(prefix).items()}
            assert all(refusal.endswith("_AUTHORIZATION_FAILED") for refusal in refusals.values()), refusals

    await asyncio.to_thread(try_all)
    for powerless in (Administrator(house.login(subscriber)), Administrator(house.login("notify"))):
        for look in (powerless.acls(), powerless.has_user("admin")):
            with pytest.raises(Refused, match="needs Describe on the cluster"):
                await look


async def test_acls_are_added_and_removed_until_they_are_as_described(house: House) -> None:
    access = Access.wanted(house.prefix, house.principal, None, sandbox=False)
    notify, billing = (principal_of(name, house.principal) for name in ("notify", "billing"))
    again = await applied(house.administrator, access, prune=True)
    assert (again.ok, again.data) == (True, {"acl_differences": [], "added": [], "removed": []})

    seat = f"{house.prefix}muster.entitlements.seat"
    lost = Acl(notify, Kind.TOPIC, seat, Operation.READ)
    surplus = Acl(billing, Kind.TOPIC, seat, Operation.WRITE)
    denied = Acl(billing, Kind.TOPIC, seat, Operation.READ, allow=False)
    stranger = Acl("User:stranger", Kind.TOPIC, f"{house.prefix}muster.", Operation.READ, prefixed=True)
    of_another_release = Acl(billing, Kind.TOPIC, "other.muster.billing.term", Operation.WRITE)
    await house.administrator.remove([lost])
    await house.administrator.add([surplus, denied, stranger, of_another_release])

    async def all_named() -> bool:
        found = access.differences(await house.administrator.acls())
        return {each.acl for each in found} == {lost, surplus, denied, stranger, of_another_release}

    await eventually(all_named)

    kept = await applied(house.administrator, access, prune=False)
    assert (kept.ok, len(kept.data["added"]), kept.data["removed"]) == (False, 1, [])
    pruned = await applied(house.administrator, access, prune=True)
    assert {each["name"] for each in pruned.data["removed"]} == {seat}
    # The subscribers were not named, so a stranger's ACL is kept, and so is what a release with another prefix needs.
    assert {each["principal"] for each in pruned.data["acl_differences"]} == {"User:stranger", billing}
    await house.administrator.remove([stranger])

    async def only_the_other_releases_named() -> bool:
        found = access.differences(await house.administrator.acls())
        return [each.acl for each in found] == [of_another_release]

    await eventually(only_the_other_releases_named)
    assert (await applied(house.administrator, access, prune=True)).ok
    await house.administrator.remove([of_another_release])
    await house.has(access)
