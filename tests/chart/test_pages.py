"""The pages about Kubernetes name values, objects, and labels that exist."""

import re
from textwrap import dedent

import pytest
import yaml

from infra.chart.generate import CHART, README, ROOT
from infra.chart.values import values_of
from muster_runtime.settings import Settings
from tests.chart.rendering import EXAMPLES, Values, containers, example, of_kind, pods, render
from tests.cluster.runbooks import PAGES, blocks_of


def test_the_pages_cover_the_operations() -> None:
    assert set(PAGES) == {
        "chart/README.md",
        *(
            f"runbooks/{name}.md"
            for name in ("README", "upgrade", "rollback", "scaling", "drain", "rotate-secrets", "restore", "failover")
        ),
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_only_what_exists(name: str) -> None:
    known = {value.path for value in values_of((CHART / "values.yaml").read_text("utf-8"))}
    script = "\n".join(PAGES[name]).replace("$SERVICE", "billing").replace("$ROLE", "api")
    for path in re.findall(r"--set \"?([\w.]+)=", script):
        assert path in known or re.sub(r"\.roles\.\w+\.replicas$", ".roles", path) in known, path
    for deployment in re.findall(r"deployment/([\w-]+)", script):
        assert deployment in of_kind(example("standard"), "Deployment")
    operation: Values = {"operations": {"args": ["muster_operator", "streams"]}}
    every_pod = [*pods(render(operation)), *pods(example("standard"))]
    labels = {item for _, pod in every_pod for item in pod["metadata"]["labels"].items()}
    for label, value in re.findall(r'--selector "?([\w./]+)=(\w+)', script):
        assert (label, value) in labels, label


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_not_mix_an_operation_with_the_daily_jobs(name: str) -> None:
    """The pods of both have the same labels. Kubernetes gives those to a Job, too, unless it has labels of its own."""
    (pod,) = (
        pod["metadata"]["labels"]
        for found, pod in pods(render({"operations": {"args": ["muster_operator", "reconcile"]}}))
        if "-operation-" in found
    )
    (manifest,) = re.findall(r"^ *```yaml\n( *apiVersion: batch/v1.*?)^ *```", README.read_text("utf-8"), re.M | re.S)
    job = yaml.safe_load(dedent(manifest))["spec"]["jobTemplate"].get("metadata", {}).get("labels", pod)
    for selected, selector in re.findall(r'(logs|jobs?) --selector "?([^\s"]+)', "\n".join(PAGES[name])):
        labels = pod if selected == "logs" else job
        assert not {tuple(each.split("=")) for each in selector.split(",")} <= labels.items(), selector


@pytest.mark.parametrize("mode", ["hook", "job"])
def test_a_stopped_service_migrates_by_the_job_that_the_runbook_waits_for(mode: str) -> None:
    objects = render({"migrations": {"mode": mode}, "operations": {"service": "billing"}})
    selected = {"app.kubernetes.io/component": "billing", "muster/role": "migrate"}
    (job,) = (
        each for each in of_kind(objects, "Job").values() if selected.items() <= each["metadata"]["labels"].items()
    )
    assert [each["args"] for each in containers(job["spec"]["template"])] == [["muster_billing", "migrate"]]
    is_hook = "helm.sh/hook" in (job["metadata"].get("annotations") or {})
    assert is_hook == (mode == "hook")  # any other Job is part of the release, so the upgrade creates it


def test_the_projects_readme_installs_as_the_charts_page_does() -> None:
    label = "kubectl label namespace muster pod-security.kubernetes.io/enforce=restricted"
    (short,) = blocks_of(ROOT / "README.md")
    long, _uninstall = blocks_of(README)
    assert _words(short) == _words(long.replace(label, ""))


def test_the_readme_names_every_example_and_secret() -> None:
    readme = README.read_text("utf-8")
    for name in EXAMPLES:
        assert f"(examples/{name}.yaml)" in readme
    named = {source["secret"]["name"] for found in _standard_sources() for source in found}
    for secret in named:
        assert f"`{re.sub('-(enrollment|entitlements|billing|notify)', '-<service>', secret)}`" in readme, secret


@pytest.mark.parametrize(
    "values", [{"provisioning": {"mode": "job"}}, {"strimzi": {"enabled": True, "cluster": "kafka"}}], ids=str
)
def test_a_daily_job_is_rendered_for_a_site_that_turned_on_preflight_after_its_install(values: Values) -> None:
    (command,) = re.findall(r"`helm template ([^`]*operations\.args[^`]*)`", README.read_text("utf-8"))
    (arguments,) = re.findall(r"operations\.args=\{([\w,]+)\}", command)
    site: Values = {**values, "migrations": {"mode": "job"}, "preflight": {"mode": "hook"}}
    daily = {**site, "operations": {"args": arguments.split(",")}}
    objects = render(daily, is_upgrade="--is-upgrade" in command.split())
    (pod,) = (pod for name, pod in pods(objects) if "-operation-" in name)
    assert pod["spec"]["containers"][0]["args"] == ["muster_operator", "reconcile"]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README.read_text("utf-8")):
        assert (README.parent / target).exists(), target


def test_the_page_on_scale_counts_every_profiles_connections() -> None:
    (row,) = re.findall(r"^\| connections to Postgres.*$", (ROOT / "docs" / "scale.md").read_text("utf-8"), flags=re.M)
    each = 2 * Settings.model_fields["postgres_pool_size"].default + 3
    for profile in ("small", "standard", "large"):
        deployments = of_kind(render({"profile": profile}), "Deployment").values()
        count = sum(found["spec"]["replicas"] for found in deployments)
        assert f"{each * count:,}" in re.findall(r"[\d,]+", row), profile


def _words(script: str) -> list[str]:
    """A script's words, without line breaks."""
    return script.replace(";", " ").split()


def _standard_sources() -> list[list[dict[str, dict[str, str]]]]:
    return [
        volume["projected"]["sources"]
        for _, pod in pods(render({"provisioning": {"mode": "hook"}}))
        for volume in pod["spec"]["volumes"]
        if "projected" in volume
    ]
