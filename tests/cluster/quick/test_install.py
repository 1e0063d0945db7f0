"""A fresh install, the resources that it needs, and its own test."""

from collections import defaultdict

from tests.cluster.conftest import Ready
from tests.cluster.figures import record
from tests.cluster.kube import MUSTER, Kube, is_ready, seconds_to_ready
from tests.cluster.release import Release

# For a single pod on a machine that does little else; the kubelet probes every second.
START_SECONDS = 10


async def test_everything_is_ready_after_the_install(kube: Kube, installed: Ready) -> None:
    await kube.rolled_out()  # a pod may be too busy to answer its probe for a moment
    pods = [pod for pod in await kube.pods() if pod["status"]["phase"] == "Running"]
    assert all(is_ready(pod) for pod in pods)
    restarts = sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])
    assert restarts == 0
    record("install, from nothing to all ready", f"{installed.seconds:.0f} s ({len(pods)} pods)")


async def test_a_pod_is_ready_soon_after_its_start(kube: Kube) -> None:
    await kube.kubectl("-n", MUSTER, "rollout", "restart", "deployment/muster-billing-relay")  # it has one pod
    await kube.rolled_out()
    pods = await kube.pods("app.kubernetes.io/component=billing,muster/role=relay")
    seconds = [seconds_to_ready(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    record("a pod, from its container's start to ready", f"{max(seconds):.0f} s at most of {len(seconds)}")
    assert max(seconds) <= START_SECONDS


async def test_pods_stay_within_the_memory_that_they_ask_for(kube: Kube) -> None:
    by_role: defaultdict[str, list[float]] = defaultdict(list)
    asked: dict[str, float] = {}
    used = await _memory(kube)
    for pod in await kube.pods("muster/role"):
        role, container = pod["metadata"]["labels"]["muster/role"], pod["spec"]["containers"][0]
        if pod["metadata"]["name"] in used and role != "migrate":
            by_role[role].append(used[pod["metadata"]["name"]])
            asked[role] = int(container["resources"]["requests"]["memory"].removesuffix("Mi"))
    for role, megabytes in sorted(by_role.items()):
        record(f"memory of a pod, {role}", f"{max(megabytes):.0f} MiB at most of {len(megabytes)}")
    assert all(max(megabytes) <= asked[role] for role, megabytes in by_role.items()), asked


async def test_helm_test_sends_a_command_and_waits_for_its_event(kube: Kube) -> None:
    print(await Release(kube).test())


async def _memory(kube: Kube) -> dict[str, float]:
    """The working set of each of the release's pods, in MiB, from its kubelet."""
    found = {}
    for node in (await kube.get("/api/v1/nodes"))["items"]:
        summary = await kube.get(f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
        for pod in summary["pods"]:
            if pod["podRef"]["namespace"] == MUSTER and "workingSetBytes" in pod.get("memory", {}):
                found[pod["podRef"]["name"]] = pod["memory"]["workingSetBytes"] / 2**20
    return found
