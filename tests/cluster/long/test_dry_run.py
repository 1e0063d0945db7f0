"""A real API server accepts everything that the chart can render, with other operators' resources defined."""

from tests.cluster.conftest import Ready
from tests.cluster.kube import HOME, Kube
from tests.cluster.release import Release, values

DEFINITIONS = HOME / "definitions"


async def test_the_api_server_takes_every_object_that_a_release_may_have(kube: Kube, installed: Ready) -> None:
    await kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(DEFINITIONS))
    names = [
        d["metadata"]["name"]
        for d in (await kube.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions"))["items"]
    ]
    await kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    more = {
        "profile": "large",
        "autoscaling": {
            "api": {"enabled": True},
            "consumer": {"enabled": True, "authentication": "muster-kafka"},
        },
        "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}},
        "http": {"domain": "muster.gov", "gateway": {"enabled": True, "parentRefs": [{"name": "outside"}]}},
    }
    release = Release(kube)
    await release.try_upgrade(values(installed.servers, **more))
    ingress = {"http": {"domain": "muster.gov", "ingress": {"enabled": True, "tlsSecret": "muster-tls"}}}
    await release.try_upgrade(values(installed.servers, **ingress))
    databases = {"cloudnativepg": {"enabled": True, "cluster": "postgres"}, "migrations": {"mode": "job"}}
    await release.try_upgrade(values(installed.servers, **databases))
