"""What the chart states about the code matches the code."""

import os
import re
from typing import Any

import pytest

from infra.chart.generate import built
from muster_contracts import SERVICES, topics
from muster_contracts.topics import MIN_IN_SYNC, min_in_sync
from muster_operator.access.acls import Acl, Kind, Operation, acls_of_services
from muster_operator.topic_plan import LiveTopic, differences
from muster_runtime.settings import Settings
from tests.chart.rendering import Object, containers, environment, example, leaves, of_kind, pods, render

STRIMZI = {"strimzi": {"enabled": True, "cluster": "kafka"}}


def test_every_duty_of_a_service_has_a_deployment() -> None:
    for name, deployments in (("standard", of_kind(example("standard"), "Deployment")),):
        for service in SERVICES:
            code = built(service)
            duties = {"api", "scheduler"}
            duties |= {"consumer"} if code.subscriptions else set()
            duties |= {"relay"} if code.produces else set()
            duties |= {"worker"} if code.workers else set()
            found = {each for each in deployments if each.startswith(f"muster-{service}-")}
            assert found == {f"muster-{service}-{duty}" for duty in duties}, name


def test_a_deployment_says_which_schema_its_code_needs() -> None:
    for name, deployment in of_kind(example("small"), "Deployment").items():
        schema = built(name.split("-")[1]).schema
        said = deployment["metadata"]["annotations"]
        assert said["muster/schema-min"] == schema.minimum
        assert said["muster/schema-head"] == schema.head


def test_a_small_site_has_one_deployment_for_each_service() -> None:
    found = of_kind(example("small"), "Deployment")
    assert {name: each["spec"]["replicas"] for name, each in found.items()} == {f"muster-{s}-all": 1 for s in SERVICES}
    assert [_serve(each) for each in found.values()] == [
        [f"muster_{s}", "serve", "--role", "all"] for s in sorted(SERVICES)
    ]


def test_a_consumer_scales_to_the_partitions_of_what_it_reads() -> None:
    scaled = of_kind(example("large"), "ScaledObject")
    for service in SERVICES:
        found = scaled[f"muster-{service}-consumer"]["spec"]
        read = {event.topic for event in built(service).subscriptions}
        assert {trigger["metadata"]["topic"] for trigger in found["triggers"]} == read
        assert found["maxReplicaCount"] == max(topics()[topic].partitions for topic in read)
        assert {trigger["metadata"]["consumerGroup"] for trigger in found["triggers"]} == {service}
        deployment = of_kind(example("large"), "Deployment")[f"muster-{service}-consumer"]
        assert "replicas" not in deployment["spec"]  # Helm would set them back at each upgrade


def test_the_settings_of_a_pod_are_settings_of_its_service() -> None:
    values = {"tracing": {"endpoint": "http://collector:4318"}, "trustedCA": {"configMap": "authorities"}}
    for name, pod in pods(render(values)):
        if (service := pod["metadata"]["labels"]["app.kubernetes.io/component"]) not in SERVICES:
            continue
        known = {f"MUSTER_{field.upper()}" for field in type(built(service).settings).model_fields}
        for container in containers(pod):
            ours = {variable for variable in environment(container) if variable.startswith("MUSTER_")}
            assert ours - known == {"MUSTER_SECRETS_DIR"}, name


def test_a_setting_keeps_its_written_form() -> None:
    written = {"MUSTER_OUTBOX_ROWS": 2_000_000, "MUSTER_CONSUMER_STUCK_SECONDS": 0.5, "MUSTER_ALLOW_PLAINTEXT": True}
    (pod,) = (
        pod
        for name, pod in pods(render({"services": {"billing": {"settings": written}}}))
        if name == "muster-billing-all"
    )
    variables = environment(containers(pod)[0])
    assert [variables[name] for name in written] == ["2000000", "0.5", "true"]


def test_a_million_is_written_without_an_exponent() -> None:
    million = 1_000_000
    values = {
        "profile": "standard",
        "autoscaling": {"consumer": {"enabled": True, "authentication": "kafka", "lag": million}},
        "migrations": {"waitSeconds": million},
        "selfTest": {"waitSeconds": million},
    }
    objects = render(values)
    assert [text for text in leaves(objects) if isinstance(text, str) and re.fullmatch(r"[\d.]+e\+\d+", text)] == []
    for scaled in of_kind(objects, "ScaledObject").values():
        assert {trigger["metadata"]["lagThreshold"] for trigger in scaled["spec"]["triggers"]} == {str(million)}


def test_an_operators_command_may_have_numbers() -> None:
    words = ["muster_operator", "streams", "pass", "billing", "muster.billing.term", 3, 4_711_000]
    (pod,) = (pod for name, pod in pods(render({"operations": {"args": words}})) if "-operation-" in name)
    assert pod["spec"]["containers"][0]["args"] == [str(word) for word in words]


def test_kedas_scaler_finds_a_broker_by_ipv6() -> None:
    bootstrap = "[2001:db8::1]:9093,[2001:db8::2]:9093"
    scaling = {"consumer": {"enabled": True, "authentication": "kafka"}}
    objects = render({"profile": "standard", "kafka": {"bootstrap": bootstrap}, "autoscaling": scaling})
    for scaled in of_kind(objects, "ScaledObject").values():
        assert {trigger["metadata"]["bootstrapServers"] for trigger in scaled["spec"]["triggers"]} == {bootstrap}


def test_an_operators_job_gets_the_common_kafka_settings_and_its_own() -> None:
    values = {
        "settings": {"MUSTER_KAFKA_TOKEN_URL": "https://login.example.gov/token", "MUSTER_LOG_LEVEL": "debug"},
        "operations": {"settings": {"MUSTER_KAFKA_CLIENT_ID": "muster-admin"}},
        "provisioning": {"mode": "job"},
        "migrations": {"mode": "job"},
    }
    for name, pod in pods(render(values)):
        if pod["metadata"]["labels"]["muster/role"] in ("provision", "self-test"):
            variables = environment(containers(pod)[0])
            assert variables["MUSTER_KAFKA_TOKEN_URL"] == "https://login.example.gov/token", name
            assert variables["MUSTER_KAFKA_CLIENT_ID"] == "muster-admin"
            assert "MUSTER_LOG_LEVEL" not in variables


def test_a_migration_may_omit_tls_if_its_service_may() -> None:
    values = {"services": {"billing": {"settings": {"MUSTER_ALLOW_PLAINTEXT": "true"}}}}
    allowed = {
        name
        for name, pod in pods(render(values))
        if name.endswith("-migrate") and environment(containers(pod)[0]).get("MUSTER_ALLOW_PLAINTEXT") == "true"
    }
    assert allowed == {"muster-billing-migrate"}


def test_a_migration_needs_no_more_than_its_pod_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """In production, the owner's address completes the settings."""
    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        monkeypatch.delenv(name)  # those of the tests' own servers
    (pod,) = (pod for name, pod in pods(example("standard")) if name == "muster-notify-migrate")
    for name, value in environment(containers(pod)[0]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MUSTER_SECRETS_DIR", "")
    dsn = "postgresql://notify_owner:Wq8-vZr2-Kd71-pLx9@db/notify?sslmode=verify-full"
    monkeypatch.setenv("MUSTER_POSTGRES_OWNER_DSN", dsn)
    assert Settings().postgres_owner_dsn.get_secret_value() == dsn


@pytest.mark.parametrize(("replicas", "environment_name"), [(3, "production"), (3, "sandbox"), (1, "sandbox")])
def test_strimzis_topics_match_the_operators_plan(replicas: int, environment_name: str) -> None:
    strimzi = {**STRIMZI["strimzi"], "replicas": replicas}
    values = {"strimzi": strimzi, "environment": environment_name, "kafka": {"topicPrefix": "p."}}
    found = of_kind(render(values), "KafkaTopic")
    live = {each["spec"]["topicName"]: _live(each["spec"]) for each in found.values()}
    sandbox = environment_name == "sandbox"
    assert list(differences("p.", topics().values(), live, replicas, sandbox=sandbox)) == []
    assert {topic.min_in_sync for topic in live.values()} == {min_in_sync(replicas)}


@pytest.mark.parametrize("environment_name", ["production", "sandbox"])
def test_strimzis_users_have_the_rights_in_the_operators_list(environment_name: str) -> None:
    values = {**STRIMZI, "environment": environment_name, "kafka": {"topicPrefix": "p."}}
    rules = {
        Acl(f"User:{name}", Kind(_kind(acl["resource"]["type"])), acl["resource"]["name"], Operation(operation))
        for name, user in of_kind(render(values), "KafkaUser").items()
        for acl in user["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    of_services = acls_of_services(topics().values(), prefix="p.", sandbox=environment_name == "sandbox")
    # The command that moves the sandbox's clock is not a service.
    assert rules == {acl for acl in of_services if acl.principal != "User:sandbox"}


def test_cloudnativepgs_roles_can_do_no_more_than_the_documentation_says() -> None:
    objects = render({"cloudnativepg": {"enabled": True, "cluster": "postgres"}, "migrations": {"mode": "job"}})
    roles = {each["spec"]["name"]: each["spec"] for each in of_kind(objects, "DatabaseRole").values()}
    assert set(roles) == {f"{service}_{role}" for service in SERVICES for role in ("owner", "api", "worker")}
    for name, role in roles.items():
        assert not any(role[right] for right in ("superuser", "createdb", "createrole", "bypassrls"))
        assert ("inRoles" in role) == name.endswith("_owner")
    databases = of_kind(objects, "Database")
    assert {each["spec"]["schemas"][0]["owner"] for each in databases.values()} == {f"{s}_owner" for s in SERVICES}


def _serve(deployment: Object) -> list[str]:
    arguments: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return arguments


def _live(spec: Object) -> LiveTopic:
    config: dict[str, Any] = spec["config"]
    unclean = config["unclean.leader.election.enable"] == "true"
    return LiveTopic(spec["partitions"], spec["replicas"], int(config[MIN_IN_SYNC]), unclean, config)


def _kind(resource: str) -> str:
    return "transactional-id" if resource == "transactionalId" else resource
