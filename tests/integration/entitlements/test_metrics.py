"""What a new process exports: its roles, and counters at zero, so that their alerts see the first increase."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from muster_entitlements.bootstrap import build
from muster_entitlements.settings import EntitlementsSettings
from tests.faults.servers import free_port
from tests.integration.entitlements.conftest import Entitlements, ProcessStarter
from tests.support.eventually import eventually

ALERTS = Path(__file__).parents[3] / "infra" / "alerts"


async def test_an_alert_sees_the_first_increase_of_each_counter_in_a_new_process(
    front: Entitlements, start_process: ProcessStarter
) -> None:
    values = {
        (sample.name, sample.labels.get("topic"), sample.labels.get("kind")): sample.value
        for family in await _of_new_process(front, start_process)
        for sample in family.samples
        if sample.name in _counters_of_first_increase()
    }
    service = build(EntitlementsSettings(environment="sandbox"))
    topics = {event.topic for event in service.subscriptions}
    by_topic = ("muster_gaps_total", "muster_new_epochs_total", "muster_unknown_types_total")
    expected = {
        *((name, topic, None) for name in by_topic for topic in topics),
        *(("muster_deadline_lateness_seconds_count", None, kind) for kind in service.deadline_handlers),
        ("muster_break_glass_total", None, None),
    }
    assert values == dict.fromkeys(expected, 0)


async def test_a_process_says_which_of_the_roles_that_its_service_needs_it_runs(
    front: Entitlements, start_process: ProcessStarter
) -> None:
    families = await _of_new_process(front, start_process, "relay", "operations")
    (running,) = (family for family in families if family.name == "muster_role_running")
    assert {sample.labels["role"]: sample.value for sample in running.samples} == {
        "api": 0,
        "consumer": 0,
        "relay": 1,
        "scheduler": 0,
        "worker": 0,
    }


def _counters_of_first_increase() -> set[str]:
    """The counters with an alert that fires at any increase."""
    rules = [
        rule
        for file in ALERTS.glob("*.yml")
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    return {
        counter
        for rule in rules
        if re.search(r"> 0(?![.\d])", rule["expr"])
        for counter in re.findall(r"(?:increase|rate)\((muster_\w+_(?:total|count))\b", rule["expr"])
    }


async def _of_new_process(front: Entitlements, start_process: ProcessStarter, *roles: str) -> Sequence[Metric]:
    """The metrics of a process that has just started, with every role by default."""
    port = free_port()
    await start_process(*roles, port=port)

    async def page() -> str:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        return ""

    return list(text_string_to_metric_families(await eventually(page, timeout=120)))
