"""How pods scale with the load: within limits, and slowly down where each change moves partitions."""

from muster_contracts import SERVICES
from tests.chart.rendering import Values, of_kind, render

SCALED: Values = {
    "profile": "standard",
    "autoscaling": {
        "api": {"enabled": True, "minReplicas": 3, "maxReplicas": 9, "targetCPU": 55},
        "consumer": {
            "enabled": True,
            "authentication": "kafka",
            "minReplicas": 2,
            "maxReplicas": 8,
            "lag": 700,
            "pollingSeconds": 20,
            "stabilizationSeconds": 600,
        },
    },
}


def test_an_api_scales_by_cpu_within_its_limits() -> None:
    scalers = of_kind(render(SCALED), "HorizontalPodAutoscaler")
    assert set(scalers) == {f"muster-{service}-api" for service in SERVICES}
    for name, scaler in scalers.items():
        assert scaler["spec"] == {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 3,
            "maxReplicas": 9,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}},
                }
            ],
        }


def test_a_consumer_scales_by_lag_within_its_limits_and_down_by_a_pod_a_minute() -> None:
    scalers = of_kind(render(SCALED), "ScaledObject")
    assert set(scalers) == {f"muster-{service}-consumer" for service in SERVICES}
    for name, scaler in scalers.items():
        spec = scaler["spec"]
        assert spec["scaleTargetRef"] == {"kind": "Deployment", "name": name}
        assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"]) == (2, 8, 20)
        assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {
            "stabilizationWindowSeconds": 600,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        }
        for trigger in spec["triggers"]:
            assert (trigger["type"], trigger["metadata"]["lagThreshold"]) == ("kafka", "700")
            # A new group reads from the beginning, so its whole topic is lag.
            assert trigger["metadata"]["offsetResetPolicy"] == "earliest"
            assert (trigger["metadata"]["tls"], trigger["metadata"]["sasl"]) == ("enable", "scram_sha512")
            assert trigger["authenticationRef"] == {"name": "kafka", "kind": "TriggerAuthentication"}
