"""`muster topics`: compares a cluster's topics and ACLs with the contracts, and corrects what is safe to correct.

It never adds partitions to a live topic, because its streams would lose their order, and never deletes a topic.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from rich.console import RenderableType
from rich.markup import escape

from muster_contracts import Topic
from muster_contracts import topics as described_topics
from muster_contracts.topics import MIN_IN_SYNC, min_in_sync
from muster_operator.access.acls import PRINCIPAL, SANDBOX
from muster_operator.access.application import Access, applied, shown
from muster_operator.access.options import AclsOption, PrincipalOption, SandboxOption, SubscribersOption
from muster_operator.clients import client_of_kafka
from muster_operator.failures import BadInput, Refused
from muster_operator.group import group
from muster_operator.output import Answer, table
from muster_operator.target import Target, on_target
from muster_operator.topics import connect, create_topics, usual_replicas
from muster_runtime.messaging.connection import KafkaConnection

app = group("Compare Kafka's topics with the contracts, and correct them.")

# Kafka's config_source for a setting that is set on the topic itself.
_SET_ON_TOPIC = 1

# Kafka's internal topics, shared by all programs on a cluster. If they lose acknowledged records, consumer groups go
# back, and an unfinished transaction may seem finished.
_KAFKAS_OWN = ("__consumer_offsets", "__transaction_state")

# Whether a broker that lacks acknowledged events may become leader.
_UNCLEAN = "unclean.leader.election.enable"


class Remedy(StrEnum):
    """What `apply` does about a difference."""

    CREATE = "create it"
    ALTER = "set it"
    PERSON = "nothing: change it yourself"
    NONE = "nothing: investigate"
    OTHERS = "nothing: another release may use it"


@dataclass(frozen=True, slots=True)
class Difference:
    """How a topic differs from its contract."""

    topic: str
    what: str
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class LiveTopic:
    """A topic in the cluster: its partitions, their lowest number of replicas, and the topic's own settings.

    `min_in_sync` and `unclean` are the values in effect, wherever they are set.
    """

    partitions: int
    replicas: int
    min_in_sync: int
    unclean: bool
    settings: Mapping[str, str]


async def read_cluster(admin: AIOKafkaAdminClient, prefix: str) -> dict[str, LiveTopic]:
    """The cluster's topics whose names start with the prefix and `muster.`.

    Raises Refused if a broker does not describe one, which happens briefly after its creation.
    """
    return await _read(admin, [name for name in await admin.list_topics() if name.startswith(f"{prefix}muster.")])


async def _read(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, LiveTopic]:
    if not names:
        return {}
    topics = _described(await admin.describe_topics(names), "topic")
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, configs=None) for name in names]
    answers = [answer.to_object() for answer in await admin.describe_configs(asked)]
    resources = _described([resource for answer in answers for resource in answer["resources"]], "resource_name")
    return {name: _live(topics[name]["partitions"], resources[name]["config_entries"]) for name in names}


def _described(answers: Sequence[Mapping[str, Any]], name: str) -> dict[str, Mapping[str, Any]]:
    for answer in answers:
        if code := answer["error_code"]:
            raise Refused(f"{answer[name]}: {for_code(code).__name__}")
    return {answer[name]: answer for answer in answers}


def _live(partitions: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]]) -> LiveTopic:
    holds = {entry["config_names"]: entry["config_value"] for entry in entries}
    here = {entry["config_names"] for entry in entries if entry["config_source"] == _SET_ON_TOPIC}
    return LiveTopic(
        len(partitions),
        min(len(partition["replicas"]) for partition in partitions),
        int(holds[MIN_IN_SYNC]),
        holds[_UNCLEAN] == "true",
        {name: value for name, value in holds.items() if name in here},
    )


def differences(
    prefix: str, wanted: Iterable[Topic], live: Mapping[str, LiveTopic], replicas: int, *, sandbox: bool = False
) -> Iterator[Difference]:
    """Compare the cluster with the contracts, and with this number of replicas for each topic.

    Only a `sandbox` must have its clock's topic.
    """
    names = {prefix + topic.name: topic for topic in wanted}
    for name, topic in names.items():
        if name not in live:
            if topic.owner == SANDBOX and not sandbox:
                continue
            yield Difference(name, f"missing; {topic.partitions} partitions, copies: {replicas}", Remedy.CREATE)
            continue
        there = live[name]
        if there.partitions != topic.partitions:
            what = f"{there.partitions} partitions, not {topic.partitions}: changing that breaks the streams' order"
            yield Difference(name, what, Remedy.NONE)
        if there.replicas < replicas:
            what = f"copies: {there.replicas}, not {replicas}; use kafka-reassign-partitions.sh, then apply again"
            yield Difference(name, what, Remedy.NONE)
        if there.min_in_sync < (least := min_in_sync(there.replicas)):
            yield Difference(name, f"{MIN_IN_SYNC}={there.min_in_sync}, not {least}", Remedy.ALTER)
        for setting, value in topic.settings.items():
            if there.settings.get(setting) != value:
                yield Difference(name, f"{setting}={there.settings.get(setting)}, not {value}", Remedy.ALTER)
    for name in sorted(live.keys() - names.keys()):
        yield Difference(name, "no contract of this release describes it", Remedy.OTHERS)


def differences_of_kafkas_own(live: Mapping[str, LiveTopic], replicas: int) -> Iterator[Difference]:
    """The differences of Kafka's internal topics, which only a person may correct: other programs use them too."""
    for name, there in live.items():
        if there.replicas < replicas:
            what = f"copies: {there.replicas}, not {replicas}; use kafka-reassign-partitions.sh"
            yield Difference(name, what, Remedy.PERSON)
        if there.min_in_sync < (least := min_in_sync(there.replicas)):
            yield Difference(
                name, f"{MIN_IN_SYNC}={there.min_in_sync}, not {least}; use kafka-configs.sh", Remedy.PERSON
            )
        if there.unclean:
            yield Difference(name, f"{_UNCLEAN}=true, not false; use kafka-configs.sh", Remedy.PERSON)


async def plan(kafka: KafkaConnection, prefix: str, *, sandbox: bool = False) -> list[Difference]:
    """How a cluster, of a `sandbox` or not, differs from the contracts."""
    async with connect(kafka) as admin:
        replicas = await usual_replicas(admin)
        existing = set(await admin.list_topics())
        own = await _read(admin, [name for name in _KAFKAS_OWN if name in existing])
        live = await read_cluster(admin, prefix)
        return [
            *differences(prefix, described_topics().values(), live, replicas, sandbox=sandbox),
            *differences_of_kafkas_own(own, replicas),
        ]


async def apply(
    kafka: KafkaConnection, prefix: str, replicas: int | None = None, *, sandbox: bool = False
) -> list[Difference]:
    """Create missing topics and correct settings. Returns the differences that are left for a person.

    Each new topic gets `replicas` replicas, by default three, or the number of brokers if there are fewer.
    """
    async with connect(kafka) as admin:
        copies = replicas or await usual_replicas(admin)
        live = await read_cluster(admin, prefix)
        found = list(differences(prefix, described_topics().values(), live, copies, sandbox=sandbox))
        missing = {difference.topic for difference in found if difference.remedy is Remedy.CREATE}
        created = [topic for name, topic in described_topics().items() if prefix + name in missing]
        await create_topics(kafka, prefix, created, replicas=copies)
        altered = {difference.topic for difference in found if difference.remedy is Remedy.ALTER}
        # The request replaces all of a topic's settings, so it repeats those that stay.
        changed = [
            ConfigResource(
                ConfigResourceType.TOPIC,
                name,
                configs={
                    **live[name].settings,
                    **described_topics()[name.removeprefix(prefix)].settings,
                    MIN_IN_SYNC: str(max(live[name].min_in_sync, min_in_sync(live[name].replicas))),
                },
            )
            for name in sorted(altered)
        ]
        if changed:
            for answer in await admin.alter_configs(changed):
                for code, message, _, name in (tuple(each.values()) for each in answer.to_object()["resources"]):
                    if code:
                        raise Refused(f"{name}: {for_code(code).__name__}: {message}")
        return [difference for difference in found if difference.remedy in (Remedy.NONE, Remedy.OTHERS)]


@app.command("plan")
@on_target(asks=False)
async def show_plan(
    target: Target,
    acls: AclsOption = False,
    subscribers: SubscribersOption = None,
    principal: PrincipalOption = PRINCIPAL,
    sandbox: SandboxOption = False,
) -> Answer:
    """Show how the cluster's topics differ from the contracts. The exit status is 1 if they do.

    A topic that no contract of this release describes, such as a later release's, is shown, but does not count.
    With --acls, also show the ACLs that the services and subscribers lack, and those that nobody needs. A service's ACL
    on a resource of a release with another prefix is shown, but does not count.
    """
    target.require("kafka")
    sandbox = sandbox or target.is_sandbox
    async with client_of_kafka(target.kafka):
        found = await plan(target.kafka, target.topic_prefix, sandbox=sandbox)
    answer = _answer(found)
    if not acls:
        return answer
    access = Access.wanted(target.topic_prefix, principal, subscribers, sandbox=sandbox)
    return answer.and_then(shown(access.differences(await target.administrator().acls())))


@app.command("apply")
@on_target(asks=False)
async def apply_plan(
    target: Target,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Replicas of each new topic. Default: three, or as many as there are brokers."),
    ] = None,
    acls: AclsOption = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="With --acls, also remove unneeded ACLs on Muster's topics, groups, and IDs."),
    ] = False,
    subscribers: SubscribersOption = None,
    principal: PrincipalOption = PRINCIPAL,
    sandbox: SandboxOption = False,
) -> Answer:
    """Create missing topics, correct their settings, and print the ACLs that services need; with --acls, add them.

    It never adds partitions or replicas to a live topic, and never deletes one. The exit status is 1 if differences
    remain. A topic that no contract of this release describes, such as a later release's, does not count, nor does a
    service's ACL on a resource of a release with another prefix.
    """
    if prune and not acls:
        raise BadInput("--prune needs --acls")
    target.require("kafka")
    sandbox = sandbox or target.is_sandbox
    access = Access.wanted(target.topic_prefix, principal, subscribers, sandbox=sandbox)
    async with client_of_kafka(target.kafka):
        left = await apply(target.kafka, target.topic_prefix, replicas, sandbox=sandbox)
    answer = _answer(left)
    if acls:
        return answer.and_then(await applied(target.administrator(), access, prune=prune))
    return answer.and_then(access.as_commands(target.kafka.bootstrap))


def _answer(found: Sequence[Difference]) -> Answer:
    text: RenderableType = "All topics match the contracts."
    if found:
        rows = [(each.topic, escape(each.what), each.remedy) for each in found]
        text = table(("topic", "difference", "what apply does"), rows)
    ok = all(each.remedy is Remedy.OTHERS for each in found)
    return Answer({"differences": [asdict(each) for each in found]}, text, ok=ok)
