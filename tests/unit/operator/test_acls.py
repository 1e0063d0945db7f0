"""The minimal Kafka rights of each identity, derived from the topics' files, and how a cluster differs from them."""

import pytest

from muster_contracts import SERVICES, Topic, topics
from muster_operator.access.acls import (
    Acl,
    Kind,
    Operation,
    Remedy,
    acls_of_services,
    acls_of_subscriber,
    compare,
    fence_of,
)
from muster_operator.access.application import Access, shown
from muster_operator.failures import BadInput
from muster_runtime.messaging.relay import transactional_id

READ, WRITE, CONFIGS = Operation.READ, Operation.WRITE, Operation.DESCRIBE_CONFIGS


def topic(name: str, owner: str, readers: tuple[str, ...] = (), *, compacted: bool = False) -> Topic:
    return Topic.model_validate(
        {
            "name": name,
            "owner": owner,
            "description": "",
            "events": (),
            "key": "subject_ref" if compacted else "agency_id",
            "partitions": 1,
            "cleanup_policy": "compact" if compacted else "delete",
            "retention_ms": -1,
            "delete_retention_ms": 1 if compacted else None,
            "access": "public",
            "readers": readers,
        }
    )


TERM = topic("muster.billing.term", "billing", ("notify",))
PEOPLE = topic("muster.entitlements.directory", "entitlements", ("notify",), compacted=True)
CLOCK = topic("muster.sandbox.clock", "sandbox", ("billing", "notify"))


def rights(acls: list[Acl]) -> set[tuple[str, str, str, str]]:
    return {(acl.principal, acl.operation, acl.kind, acl.name) for acl in acls}


@pytest.mark.parametrize(
    ("described", "sandbox", "wanted"),
    [
        pytest.param(
            [TERM],
            False,
            {
                ("User:billing", WRITE, Kind.TOPIC, "eu.muster.billing.term"),
                ("User:billing", READ, Kind.TOPIC, "eu.muster.billing.term"),
                ("User:billing", CONFIGS, Kind.TOPIC, "eu.muster.billing.term"),
                ("User:notify", READ, Kind.TOPIC, "eu.muster.billing.term"),
                ("User:notify", CONFIGS, Kind.TOPIC, "eu.muster.billing.term"),
                ("User:notify", READ, Kind.GROUP, "eu.notify"),
            },
            id="facts",
        ),
        pytest.param(
            [PEOPLE],
            False,
            {
                ("User:entitlements", WRITE, Kind.TOPIC, "eu.muster.entitlements.directory"),
                ("User:entitlements", READ, Kind.TOPIC, "eu.muster.entitlements.directory"),
                ("User:entitlements", CONFIGS, Kind.TOPIC, "eu.muster.entitlements.directory"),
                ("User:entitlements", WRITE, Kind.TRANSACTIONAL_ID, "eu.entitlements-relay"),
                ("User:notify", READ, Kind.TOPIC, "eu.muster.entitlements.directory"),
                ("User:notify", CONFIGS, Kind.TOPIC, "eu.muster.entitlements.directory"),
                ("User:notify", READ, Kind.GROUP, "eu.notify"),
            },
            id="compacted",
        ),
        pytest.param([CLOCK], False, set(), id="no clock in production"),
        pytest.param(
            [CLOCK],
            True,
            {
                ("User:sandbox", WRITE, Kind.TOPIC, "eu.muster.sandbox.clock"),
                ("User:billing", READ, Kind.TOPIC, "eu.muster.sandbox.clock"),
                ("User:notify", READ, Kind.TOPIC, "eu.muster.sandbox.clock"),
            },
            id="the sandbox's clock",
        ),
    ],
)
def test_a_service_has_exactly_the_rights_that_the_topics_files_give_it(
    described: list[Topic], sandbox: bool, wanted: set[tuple[str, str, str, str]]
) -> None:
    acls = acls_of_services(described, prefix="eu.", sandbox=sandbox)
    assert rights(acls) == wanted
    assert all(acl.allow and acl.host == "*" and not acl.prefixed for acl in acls)


def test_a_restricted_topic_is_open_only_to_its_owner_and_its_readers() -> None:
    acls = acls_of_services(topics().values())
    for name, described in topics().items():
        principals = {acl.principal for acl in acls if acl.kind is Kind.TOPIC and acl.covers(name)}
        if described.owner in SERVICES:
            assert principals == {f"User:{service}" for service in (described.owner, *described.readers)}


def test_a_topic_that_others_write_is_only_read_by_its_owner() -> None:
    usage = topics()["muster.entitlements.usage"]
    assert rights(acls_of_services([usage])) == {
        ("User:entitlements", READ, Kind.TOPIC, usage.name),
        ("User:entitlements", CONFIGS, Kind.TOPIC, usage.name),
    }


def test_the_fence_is_the_relays_transactional_id() -> None:
    assert fence_of("eu.", "billing") == transactional_id("eu.", "billing")


def test_a_subscriber_reads_its_topics_in_groups_with_its_name() -> None:
    acls = acls_of_subscriber("dash", [TERM], prefix="eu.", principal="User:CN={name}")
    assert acls == [
        Acl("User:CN=dash", Kind.GROUP, "eu.dash.", READ, prefixed=True),
        Acl("User:CN=dash", Kind.TOPIC, "eu.muster.billing.term", READ),
    ]
    written = acls_of_subscriber("feed", [], [topic("muster.treasury.feed", "feed", compacted=True)])
    assert rights(written) == {
        ("User:feed", WRITE, Kind.TOPIC, "muster.treasury.feed"),
        ("User:feed", WRITE, Kind.TRANSACTIONAL_ID, "feed-relay"),
    }


WANTED = acls_of_services([TERM], prefix="eu.")
NAME = "eu.muster.billing.term"


@pytest.mark.parametrize(
    ("acl", "remedy", "registered"),
    [
        (Acl("User:billing", Kind.TOPIC, NAME, READ, allow=False), Remedy.PRUNE, Remedy.PRUNE),
        (Acl("User:billing", Kind.GROUP, "eu.notify", READ), Remedy.PRUNE, Remedy.PRUNE),
        # Of another Muster whose services have the same principals.
        (Acl("User:billing", Kind.TOPIC, "muster.billing.term", WRITE), Remedy.OTHERS, Remedy.OTHERS),
        (Acl("User:notify", Kind.GROUP, "notify", READ), Remedy.OTHERS, Remedy.OTHERS),
        (Acl("User:billing", Kind.TRANSACTIONAL_ID, "us.billing-relay", WRITE), Remedy.OTHERS, Remedy.OTHERS),
        # More than any Muster needs.
        (Acl("User:billing", Kind.TOPIC, "*", READ), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:billing", Kind.TOPIC, "us.muster.", READ, prefixed=True), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:billing", Kind.TOPIC, "elsewhere", READ), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:notify", Kind.GROUP, "us.notify-2", READ), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:billing", Kind.TRANSACTIONAL_ID, "us.billing", WRITE), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:billing", Kind.CLUSTER, "kafka-cluster", Operation.ALTER), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:stranger", Kind.TOPIC, NAME, READ), Remedy.REGISTERED, Remedy.PRUNE),
        (Acl("User:stranger", Kind.TOPIC, "eu.muster.", READ, prefixed=True), Remedy.REGISTERED, Remedy.PRUNE),
        (Acl("User:stranger", Kind.GROUP, "eu.notify", READ), Remedy.REGISTERED, Remedy.PRUNE),
        (Acl("User:stranger", Kind.TRANSACTIONAL_ID, "eu.billing-relay", WRITE), Remedy.REGISTERED, Remedy.PRUNE),
        (Acl("User:*", Kind.TOPIC, "*", Operation.DESCRIBE), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:stranger", Kind.TOPIC, "e", READ, prefixed=True), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:stranger", Kind.GROUP, "*", READ), Remedy.PERSON, Remedy.PERSON),
        (Acl("User:stranger", Kind.TOPIC, "elsewhere", READ), None, None),
        (Acl("User:stranger", Kind.TOPIC, "muster.billing.term", READ), None, None),  # another Muster's
        (Acl("User:stranger", Kind.CLUSTER, "kafka-cluster", Operation.ALTER), None, None),
    ],
    ids=str,
)
def test_excess_rights_are_named_and_unrelated_ones_are_not(
    acl: Acl, remedy: Remedy | None, registered: Remedy | None
) -> None:
    for known, expected in ((False, remedy), (True, registered)):
        found = compare(WANTED, [*WANTED, acl], [TERM], prefix="eu.", registered=known)
        assert [(each.acl, each.remedy) for each in found] == ([(acl, expected)] if expected else [])


def test_two_releases_on_one_cluster_are_both_as_described() -> None:
    """Their services have the same principals. What the other release needs is shown, and does not count."""
    releases = {prefix: Access.wanted(prefix, "User:{name}", None, sandbox=True) for prefix in ("", "eu.", "us-")}
    there = {acl for access in releases.values() for acl in access.acls}
    for access in releases.values():
        found = access.differences(there)
        assert {each.acl for each in found} == there - set(access.acls)
        assert {(each.what, each.remedy) for each in found} == {("of a release with another prefix", Remedy.OTHERS)}
        assert shown(found).ok
        assert not shown([*found, *access.differences(there - {access.acls[0]})]).ok


def test_a_missing_acl_is_to_be_added() -> None:
    found = compare(WANTED, WANTED[1:], [TERM], prefix="eu.")
    assert [(each.acl, each.remedy) for each in found] == [(WANTED[0], Remedy.ADD)]


@pytest.mark.parametrize("principal", ["User:billing", "{name}"])
def test_a_principal_that_names_nobody_is_refused(principal: str) -> None:
    with pytest.raises(BadInput, match="--principal"):
        Access.wanted("", principal, None, sandbox=False)


def test_kafkas_own_tool_can_add_the_rules() -> None:
    rules = Access.wanted("eu.", "User:{name}", None, sandbox=False).as_commands("kafka:9092").data["access_rules"]
    add = "kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal"
    directory = [rule for rule in rules if rule.endswith("--topic eu.muster.entitlements.directory")]
    look, on = "--operation DescribeConfigs --operation Read", "--topic eu.muster.entitlements.directory"
    assert directory == [
        f"{add} User:entitlements {look} --operation Write {on}",
        f"{add} User:notify {look} {on}",
    ]
    fenced = [rule.split()[-1] for rule in rules if "--transactional-id" in rule]
    assert fenced == ["eu.enrollment-relay", "eu.entitlements-relay"]
