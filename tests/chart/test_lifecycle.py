"""How pods start, are replaced, and end, and which Jobs run when."""

import re
from collections.abc import Iterator

import pytest

from infra.chart.generate import facts
from muster_contracts import SERVICES
from tests.chart.rendering import EXAMPLES, Object, Values, containers, environment, example, of_kind, pods, render


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_pod_may_drain_before_it_is_killed(name: str) -> None:
    drain = facts()["drain_seconds"]
    for deployment in _deployments(name):
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        role = container["args"][-1]
        waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] >= drain[role] + waits + 5, deployment["metadata"]["name"]
        assert (waits > 0) == (role in ("api", "all"))


def test_a_consumer_is_replaced_before_another_starts_and_requests_always_find_a_pod() -> None:
    for deployment in (*_deployments("standard"), *_deployments("large"), *_deployments("small")):
        role, spec = deployment["metadata"]["labels"]["muster/role"], deployment["spec"]
        if role in ("api", "all"):
            assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        elif spec.get("replicas") == 1:
            assert spec["strategy"] == {"type": "Recreate"}
        else:
            assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert spec["progressDeadlineSeconds"] > spec["minReadySeconds"] + 120


@pytest.mark.parametrize("profile", ["small", "standard"])
def test_the_probes_distinguish_liveness_from_readiness(profile: str) -> None:
    for deployment in _deployments(profile):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        paths = {
            probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        }
        # An unreachable server makes a pod unready, but restarts none. A pod that answers requests stays in its Service
        # while its events wait: it also has the routes that mend that.
        answers = deployment["metadata"]["name"].endswith(("-api", "-all"))
        assert paths == {
            "startupProbe": "/health/live",
            "readinessProbe": "/health/serving" if answers else "/health/ready",
            "livenessProbe": "/health/live",
        }
        patience = {probe: (container[probe]["failureThreshold"], container[probe]["periodSeconds"]) for probe in paths}
        assert patience == {"startupProbe": (120, 1), "readinessProbe": (6, 5), "livenessProbe": (3, 10)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_budget_can_be_met(name: str) -> None:
    budgets = of_kind(example(name), "PodDisruptionBudget")
    scaled = {found for kind in ("HorizontalPodAutoscaler", "ScaledObject") for found in of_kind(example(name), kind)}
    several = {each["metadata"]["name"] for each in _deployments(name) if each["spec"].get("replicas", 1) > 1}
    assert set(budgets) == scaled | several
    for budget in budgets.values():
        # Not minAvailable: an autoscaler may leave a single pod, which a drain evicts.
        assert budget["spec"]["maxUnavailable"] >= 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_every_pod_waits_for_its_schema_and_none_migrates() -> None:
    for deployment in _deployments("standard"):
        spec = deployment["spec"]["template"]["spec"]
        (waiting,), (serving,) = spec["initContainers"], spec["containers"]
        assert waiting["args"][1] == "wait-for-schema"
        assert waiting["args"][0] == serving["args"][0]
        assert waiting["image"] == serving["image"]


def test_a_hook_provisions_before_it_migrates() -> None:
    jobs = of_kind(render({"provisioning": {"mode": "hook"}}), "Job")
    weights = {name: int(job["metadata"]["annotations"]["helm.sh/hook-weight"]) for name, job in jobs.items()}
    provisions = weights.pop("muster-provision")
    assert set(weights) == {f"muster-{service}-migrate" for service in SERVICES}
    assert provisions < min(weights.values())
    arguments = [container["args"] for container in containers(jobs["muster-provision"]["spec"]["template"])]
    everyone = [part for name in sorted(SERVICES) for part in ("--service", name)]
    assert arguments == [
        ["muster_operator", "databases", "apply", "--database", "muster", *everyone],
        ["muster_operator", "topics", "apply", "--acls"],
    ]


def test_a_disabled_service_is_neither_provisioned_nor_tested_nor_addressed() -> None:
    values = {
        "services": {"notify": {"enabled": False}},
        "provisioning": {"mode": "job"},
        "migrations": {"mode": "job"},
    }
    chosen = [part for name in ("billing", "enrollment", "entitlements") for part in ("--service", name)]
    steps = {}
    for name, pod in pods(render(values)):
        assert "notify" not in name
        for container in containers(pod):
            if container["args"][0] == "muster_operator":
                steps[container["name"]] = container["args"][1:]
                assert "MUSTER_NOTIFY_URL" not in environment(container)
                assert environment(container)["MUSTER_BILLING_URL"] == "http://muster-billing"
    assert steps == {
        "databases": ["databases", "apply", "--database", "muster", *chosen],
        "topics": ["topics", "apply", "--acls"],
        "self-test": ["self-test", "--wait", "60", *chosen],
    }


def test_a_sandbox_lets_the_services_read_its_clock() -> None:
    jobs = of_kind(render({"environment": "sandbox", "provisioning": {"mode": "hook"}}), "Job")
    *_, topics = containers(jobs["muster-provision"]["spec"]["template"])
    assert topics["args"] == ["muster_operator", "topics", "apply", "--acls", "--sandbox"]


def test_preflight_runs_in_between_with_each_services_secrets_in_a_folder_of_its_name() -> None:
    mapped = [{"name": "other", "items": [{"key": "password", "path": "MUSTER_KAFKA_PASSWORD"}]}]
    objects = render({"preflight": {"mode": "hook"}, "services": {"billing": {"secrets": mapped}}})
    job = of_kind(objects, "Job")["muster-preflight"]
    assert job["metadata"]["annotations"]["helm.sh/hook-weight"] == "-15"
    volume = next(each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == "secrets")
    sources = {each["secret"]["name"]: each["secret"] for each in volume["projected"]["sources"]}
    assert sources["other"]["items"] == [{"key": "password", "path": "billing/MUSTER_KAFKA_PASSWORD"}]
    paths = {item["path"] for item in sources["muster-entitlements"]["items"]}
    assert {"entitlements/MUSTER_SUBJECT_KEY", "entitlements/MUSTER_POSTGRES_API_DSN"} <= paths
    assert not any("OWNER" in path for path in paths)


def test_preflight_checks_the_services_that_run_with_each_ones_certificate() -> None:
    files = {"MUSTER_KAFKA_CERTIFICATE_FILE": "/etc/muster/secrets/tls.crt", "MUSTER_KAFKA_KEY_FILE": "/x/tls.key"}
    objects = render(
        {
            "preflight": {"mode": "hook"},
            "services": {"notify": {"enabled": False}},
            "kafka": {"securityProtocol": "SSL"},
            "settings": files,
        }
    )
    spec = of_kind(objects, "Job")["muster-preflight"]["spec"]["template"]["spec"]
    chosen = [part for name in ("billing", "enrollment", "entitlements") for part in ("--service", name)]
    assert spec["containers"][0]["args"] == ["muster_operator", "preflight", *chosen]
    volume = next(each for each in spec["volumes"] if each["name"] == "secrets")
    sources = {each["secret"]["name"]: each["secret"] for each in volume["projected"]["sources"]}
    paths = {item["path"] for item in sources["muster-billing"]["items"]}
    assert {"billing/tls.crt", "billing/tls.key", "billing/MUSTER_POSTGRES_API_DSN"} <= paths


def test_pods_wait_longer_than_the_migration_job_may_take() -> None:
    deployment = of_kind(render({"migrations": {"mode": "job", "timeoutSeconds": 3600}}), "Deployment")[
        "muster-billing-all"
    ]
    assert deployment["spec"]["progressDeadlineSeconds"] > 3600


def test_a_finished_job_stays_for_its_ttl() -> None:
    def seconds(ttl: int | None) -> set[int | None]:
        jobs = of_kind(render({"migrations": {"ttlSeconds": ttl}}), "Job").values()
        return {job["spec"].get("ttlSecondsAfterFinished") for job in jobs}

    assert [seconds(ttl) for ttl in (60, 0, None)] == [{60}, {0}, {None}]


def test_a_job_beside_the_release_waits_for_what_it_needs_and_a_hook_soon_says_what_is_missing() -> None:
    def limits(mode: str) -> dict[str, int]:
        jobs = of_kind(render({"migrations": {"mode": mode}, "provisioning": {"mode": mode}}), "Job")
        return {name: job["spec"]["backoffLimit"] for name, job in jobs.items()}

    assert len(limits("hook")) == len(limits("job")) == len(SERVICES) + 1
    assert [{*limits(mode).values()} for mode in ("hook", "job")] == [{4}, {6}]


def test_an_operators_job_stays_until_it_is_deleted_so_that_no_upgrade_repeats_it() -> None:
    objects = render({"operations": {"args": ["muster_operator", "streams", "check"]}})
    (job,) = (job for name, job in of_kind(objects, "Job").items() if "-operation-" in name)
    assert not {"ttlSecondsAfterFinished", "activeDeadlineSeconds"} & job["spec"].keys()


def test_pods_are_spread_over_the_nodes_that_accept_pods() -> None:
    """Otherwise, a drained node would count as an empty one, and a pod that had to go there would wait."""
    for deployment in _deployments("large"):
        constraints = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        keys = [constraint["topologyKey"] for constraint in constraints]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for constraint in constraints:
            assert constraint["nodeTaintsPolicy"] == "Honor"
            # Without it, pods that an upgrade replaces would count too.
            assert constraint["matchLabelKeys"] == ["pod-template-hash"]
            assert constraint["labelSelector"] == deployment["spec"]["selector"]
            assert (constraint["maxSkew"], constraint["whenUnsatisfiable"]) == (1, "DoNotSchedule")


@pytest.mark.parametrize("mode", ["hook", "job"])
def test_a_plan_changes_nothing_and_shows_all_of_it_once(mode: str) -> None:
    jobs = of_kind(render({"provisioning": {"mode": mode, "plan": True}}), "Job")
    (spec,) = (job["spec"] for name, job in jobs.items() if "provision" in name)
    # Side by side: the first one fails if there is anything to do.
    plans = [container["args"][1:3] for container in spec["template"]["spec"]["containers"]]
    assert plans == [["databases", "plan"], ["topics", "plan"]]
    assert "initContainers" not in spec["template"]["spec"]
    assert spec["backoffLimit"] == 0


def test_a_job_that_is_not_a_hook_has_another_name_for_each_version() -> None:
    def names(tag: str) -> set[str]:
        return set(of_kind(render({"migrations": {"mode": "job"}, "image": {"operator": {"tag": tag}}}), "Job"))

    assert len(names("1")) == len(SERVICES)
    assert names("1") == names("1")
    assert not names("1") & names("2")


@pytest.mark.parametrize("common", [{"tag": "0.1.0"}, {"digest": f"sha256:{1:064}"}], ids=str)
@pytest.mark.parametrize("own", [{"tag": "0.2.0"}, {"digest": f"sha256:{2:064}"}], ids=str)
def test_a_service_may_be_upgraded_before_the_others(common: Values, own: Values) -> None:
    def reference(image: Values) -> str:
        return f"muster/services:{image['tag']}" if "tag" in image else f"muster/services@{image['digest']}"

    operations = {"args": ["muster_operator", "streams"], "service": "notify"}
    objects = render({"image": {"services": common}, "services": {"notify": own}, "operations": operations})
    for name, deployment in of_kind(objects, "Deployment").items():
        images = {container["image"] for container in containers(deployment["spec"]["template"])}
        assert images == {reference(own if "notify" in name else common)}
    (pod,) = (pod for name, pod in pods(objects) if "-operation-" in name)
    assert pod["spec"]["initContainers"][0]["image"] == reference(own)


def test_migrations_may_be_left_to_somebody_else() -> None:
    assert of_kind(render({"migrations": {"mode": "external"}}), "Job") == {}


@pytest.mark.parametrize(
    ("operations", "stopped"),
    [
        ({"service": "billing"}, "billing"),
        ({"stopped": ["notify", "enrollment"]}, "notify|enrollment"),
        ({"service": "billing", "stopped": ["billing", "notify"]}, "billing|notify"),
    ],
)
def test_services_may_be_stopped_without_a_command(operations: Values, stopped: str) -> None:
    objects = render({"operations": operations})
    deployments = of_kind(objects, "Deployment")
    without_pods = {name for name, each in deployments.items() if each["spec"].get("replicas") == 0}
    assert without_pods == {name for name in deployments if re.match(f"muster-({stopped})-", name)}
    assert of_kind(objects, "Job").keys() == {f"muster-{each}-migrate" for each in SERVICES}  # a backup may be older


def test_an_operators_command_has_the_service_to_itself() -> None:
    arguments = ["muster_operator", "streams", "epoch", "raise", "billing", "--reason", "restored"]
    values = {
        "profile": "standard",
        "operations": {"args": arguments, "service": "billing"},
        "autoscaling": {"api": {"enabled": True}, "consumer": {"enabled": True, "authentication": "kafka"}},
    }
    objects = render(values)
    for name, deployment in of_kind(objects, "Deployment").items():
        assert (deployment["spec"].get("replicas") == 0) == name.startswith("muster-billing-"), name
    for kind in ("HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget"):
        assert not any(name.startswith("muster-billing-") for name in of_kind(objects, kind))
    (pod,) = (pod for name, pod in pods(objects) if "-operation-" in name)
    (service,), (command,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert service["restartPolicy"] == "Always"  # a sidecar, which ends with the command
    assert service["args"] == ["muster_billing", "serve", "--role", "operations"]
    assert command["args"] == arguments
    addresses = {each["name"]: each["value"] for each in command["env"]}
    assert addresses["MUSTER_BILLING_URL"] == "http://127.0.0.1:8000"
    assert addresses["MUSTER_NOTIFY_URL"] == "http://muster-notify"
    # Neither sees the other's secrets.
    mounted = [{mount["name"] for mount in each["volumeMounts"]} for each in (service, command)]
    assert [names & {"secrets", "billing-secrets"} for names in mounted] == [{"billing-secrets"}, {"secrets"}]


def test_an_operators_command_reaches_each_stopped_service() -> None:
    operations = {"args": ["muster_operator", "streams"], "service": "billing", "stopped": ["notify", "billing"]}
    (pod,) = (pod for name, pod in pods(render({"operations": operations})) if "-operation-" in name)
    ports = {}
    for sidecar in pod["spec"]["initContainers"]:
        environment = {each["name"]: each["value"] for each in sidecar["env"]}
        ports[sidecar["name"]] = environment["MUSTER_HTTP_PORT"]
        assert sidecar["startupProbe"]["httpGet"]["port"] == int(environment["MUSTER_HTTP_PORT"])
        (secrets,) = [mount["name"] for mount in sidecar["volumeMounts"] if mount["mountPath"].endswith("/secrets")]
        assert secrets == f"{sidecar['name']}-secrets"
    assert ports == {"billing": "8000", "notify": "8001"}
    (command,) = pod["spec"]["containers"]
    addresses = {each["name"]: each["value"] for each in command["env"]}
    found = [addresses[f"MUSTER_{service}_URL"] for service in ("BILLING", "NOTIFY", "ENROLLMENT")]
    assert found == ["http://127.0.0.1:8000", "http://127.0.0.1:8001", "http://muster-enrollment"]


def _deployments(name: str) -> Iterator[Object]:
    yield from of_kind(example(name), "Deployment").values()
