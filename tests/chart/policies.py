"""What a pod must not be, as small functions: each yields what is wrong with a pod. They need no policy engine.

Sources: Kubernetes' Pod Security Standards, "restricted", of 1.37; NSA and CISA, "Kubernetes Hardening Guide" 1.2;
the Kyverno policies of Big Bang (Platform One) that apply to what a chart renders.
"""

from collections.abc import Iterator

from tests.chart.rendering import Object, containers

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def restricted(pod: Object) -> Iterator[str]:
    """Pod Security Standards: restricted, which includes baseline."""
    spec, context = pod["spec"], pod["spec"].get("securityContext", {})
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    yield from (f"volume {each['name']}" for each in spec.get("volumes", ()) if not set(each) - {"name"} <= _VOLUMES)
    if context.get("sysctls"):
        yield "sysctls"
    for container in containers(pod):
        yield from (f"{container['name']}: {what}" for what in _restricted_container(container, context))


def _restricted_container(container: Object, context: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    of_both = {**context, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if of_both.get("runAsNonRoot") is not True or of_both.get("runAsUser") == 0:
        yield "root"
    if of_both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if of_both.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "appArmorProfile"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if {"user", "role"} & set(of_both.get("seLinuxOptions", {})):
        yield "seLinuxOptions"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield "hostPort"
    handlers = [container.get(name, {}) for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    handlers += container.get("lifecycle", {}).values()
    if any("host" in handler.get(how, {}) for handler in handlers for how in ("httpGet", "tcpSocket")):
        yield "host of a probe"


def hardened(pod: Object) -> Iterator[str]:
    """NSA and CISA: what their guide requires beyond the restricted standard."""
    spec = pod["spec"]
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken"
    if any("serviceAccountToken" in source for volume in spec["volumes"] for source in _sources(volume)):
        yield "a service-account token in a volume"
    for container in containers(pod):
        name, resources = container["name"], container.get("resources", {})
        if not container["securityContext"].get("readOnlyRootFilesystem"):
            yield f"{name}: a root file system that can be written"
        if {"cpu", "memory"} - set(resources.get("limits", {})) or {"cpu", "memory"} - set(resources["requests"]):
            yield f"{name}: no limit"
        if container["image"].endswith(":latest") or not {":", "@"} & set(container["image"].rpartition("/")[2]):
            yield f"{name}: an image without a version"
        if any("valueFrom" in variable for variable in container.get("env", ())) or container.get("envFrom"):
            yield f"{name}: a secret in its environment"
        if any("command" in container or word in ("sh", "-c") for word in container.get("args", ())):
            yield f"{name}: a shell"


def _sources(volume: Object) -> list[Object]:
    sources: list[Object] = volume.get("projected", {}).get("sources", [])
    return sources


def big_bang(pod: Object) -> Iterator[str]:
    """Big Bang: its policies about pods, for any values."""
    labels, spec = pod["metadata"].get("labels", {}), pod["spec"]
    for label in ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version"):
        if not labels.get(label):
            yield f"no label {label}"
    # Kubernetes itself adds these two to every pod that lacks them.
    usual = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    if any(each.get("key") not in usual for each in spec.get("tolerations", ())):
        yield "tolerations"
    if any("hostPath" in volume for volume in spec["volumes"]):
        yield "hostPath"
    if spec.get("restartPolicy", "Always") == "Always":
        for container in spec["containers"]:
            if not {"readinessProbe", "livenessProbe"} <= set(container):
                yield f"{container['name']}: no probes"


def big_bang_strict(pod: Object) -> Iterator[str]:
    """Big Bang: its policies that need a site's values."""
    context = pod["spec"].get("securityContext", {})
    yield from (f"{name} is not above 0" for name in ("runAsUser", "runAsGroup", "fsGroup") if not context.get(name))
    for container in containers(pod):
        if container["resources"]["requests"] != container["resources"]["limits"]:
            yield f"{container['name']}: requests are not limits"
        if not container["image"].startswith("registry1.dso.mil/"):
            yield f"{container['name']}: an image of another registry"
        if "@sha256:" not in container["image"]:
            yield f"{container['name']}: an image without a digest"
