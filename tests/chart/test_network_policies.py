"""Which flows the policies allow, read like a network controller: a pod with a policy has no other flows."""

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

import pytest
import yaml

from muster_notify.domain.urls import is_public
from tests.chart.rendering import EXAMPLES, Object, Refused, Values, example, merged, of_kind, pods, render

SERVERS = {
    "postgres": ("10.20.0.5", 5432),
    "kafka": ("10.20.1.5", 9093),
    "issuer": ("10.20.2.10", 443),
    "smtp": ("10.20.2.11", 587),
    "collector": ("10.20.4.5", 4318),
    "a receiver": ("93.184.215.14", 443),
    "a receiver, IPv6": ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", 443),
    "a private address": ("10.96.0.1", 443),
    "the cloud's metadata": ("169.254.169.254", 443),
    "another pod's database": ("10.20.3.5", 5432),
    "a receiver's other port": ("93.184.215.14", 22),
}

_SERVING = {"postgres", "issuer"}
_READING = _SERVING | {"kafka"}

# What notify's deliveries reach in addition.
DELIVERIES = {"smtp", "a receiver", "a receiver, IPv6"}

# The example `standard`, and variants of the same site.
_SITE: Values = yaml.safe_load(EXAMPLES["standard"].read_text("utf-8"))
SITES: dict[str, Values] = {
    "standard": {},
    "sandbox": {"environment": "sandbox"},
    "small": {
        "profile": "small",
        "tracing": {"endpoint": "http://collector:4318"},
        "networkPolicy": {"tracing": {"to": [{"ipBlock": {"cidr": "10.20.4.0/24"}}]}},
        "provisioning": {"mode": "hook"},
        "preflight": {"mode": "hook"},
        "operations": {"args": ["muster_operator", "streams"], "service": "billing"},
    },
}

# The servers of an example that are elsewhere.
_ELSEWHERE = {"operators": {"postgres": "postgres", "kafka": "kafka"}, "large": {"collector": "monitoring"}}

# What each pod of a site reaches: all but the named ones.
_JOBS = {"migrate": {"postgres"}, "self-test": _READING}
_STANDARD = _JOBS | {"api": _SERVING} | dict.fromkeys(("consumer", "relay", "scheduler", "worker"), _READING)
REACHED: dict[str, dict[str, set[str]]] = {
    "standard": _STANDARD,
    "sandbox": _STANDARD | {"api": _READING},  # it reads the sandbox's clock
    "small": {
        **_JOBS,
        "all": _READING | {"collector"},
        "preflight": _READING | {"smtp"},
        "provision": _READING,
        "operations": _READING | {"collector"},  # a stopped service runs in it, too
    },
}

_SERVE = ("all", "api", "consumer", "relay", "scheduler", "worker")
_EXAMPLES = REACHED["small"] | _STANDARD | {"all": _READING}

CALLING = {"preflight", "provision", "operations", "self-test"}


class Peer(NamedTuple):
    """The other end of a flow: a pod, by its own and its namespace's labels, or an address."""

    labels: dict[str, str]
    namespace: dict[str, str]
    address: IPv4Address | IPv6Address | None = None


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_pod_is_denied_both_ways(name: str) -> None:
    (deny,) = (each for each in _policies(example(name)) if each["metadata"]["name"] == "muster-deny")
    assert set(deny["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny["spec"]
    for pod_name, pod in pods(example(name)):
        assert _selects(deny["spec"]["podSelector"], pod["metadata"]["labels"]), pod_name


@pytest.mark.parametrize("site", SITES)
def test_a_pod_reaches_what_it_needs_and_nothing_else(site: str) -> None:
    objects = _objects(site)
    for name, pod in pods(objects):
        expected = REACHED[site][_role(pod)] | (DELIVERIES if _delivers(pod) else set())
        assert _reached(objects, pod, {}) == expected, name
    assert {_role(pod) for _, pod in pods(objects)} == REACHED[site].keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_pods_of_an_example_reach_its_servers_and_nothing_else(name: str) -> None:
    objects = example(name)
    traced = {"collector"} if name == "large" else set()
    for pod_name, pod in pods(objects):
        expected = _EXAMPLES[_role(pod)] | (DELIVERIES if _delivers(pod) else set())
        expected |= traced if _role(pod) in _SERVE else set()
        assert _reached(objects, pod, _ELSEWHERE.get(name, {})) == expected, pod_name


@pytest.mark.parametrize("flow", ["dns", "postgres", "kafka", "issuer", "smtp", "tracing"])
def test_production_reaches_no_server_at_any_address_unless_the_site_means_it(flow: str) -> None:
    traced: Values = {"tracing": {"endpoint": "http://collector:4318"}}
    anywhere: Values = {"networkPolicy": {flow: {"to": []}}}
    with pytest.raises(Refused, match=rf"networkPolicy\.{flow}\.to is empty.* or \[.*0\.0\.0\.0/0.*\] if you mean it"):
        render({**traced, **anywhere})
    assert render({**traced, "networkPolicy": {flow: {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}}})
    assert render({**traced, **anywhere, "environment": "sandbox"})
    assert render({**traced, "networkPolicy": {"enabled": False, flow: {"to": []}}})


@pytest.mark.parametrize(
    ("values", "flow", "ports"),
    [
        ({"kafka": {"bootstrap": "k-0:9096, [2001:db8::1]:9097"}}, "kafka", {9092, 9093, 9096, 9097}),
        ({"oidc": {"issuer": "https://login:8443/realms/a:1"}}, "issuer", {443, 8443}),
        ({"oidc": {"jwks": "http://keys/"}, "settings": {"MUSTER_ALLOW_PLAINTEXT": True}}, "issuer", {80, 443}),
        ({"oidc": {"issuer": "muster", "jwks": "/etc/muster/keys.json"}}, "issuer", {443}),
        ({"settings": {"MUSTER_KAFKA_TOKEN_URL": "https://login:9443/token"}}, "issuer", {443, 9443}),
        (
            {"services": {"notify": {"settings": {"MUSTER_KAFKA_TOKEN_URL": "https://[::1]:9443"}}}},
            "issuer",
            {443, 9443},
        ),
        ({"tracing": {"endpoint": "http://collector:4317"}}, "tracing", {4317, 4318}),
    ],
    ids=str,
)
def test_the_ports_of_a_servers_addresses_are_open(values: Values, flow: str, ports: set[int]) -> None:
    (policy,) = (each for each in _policies(render(values)) if each["metadata"]["name"] == f"muster-to-{flow}")
    (rule,) = policy["spec"]["egress"]
    assert {port["port"] for port in rule["ports"]} == ports
    assert len(rule["ports"]) == len(ports)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"egress": [{}]}, r"networkPolicy\.egress\[0\] has no `to`.* or \[.*\] if you mean it"),
        ({"egress": [{"to": []}]}, r"networkPolicy\.egress\[0\] has no `to`"),
        ({"webhooks": {"except": []}}, r"networkPolicy\.webhooks\.except is empty, which lets webhooks reach internal"),
        ({"webhooks": {"except6": []}}, r"networkPolicy\.webhooks\.except6 is empty"),
    ],
    ids=str,
)
def test_production_opens_no_way_to_any_address(values: Values, words: str) -> None:
    with pytest.raises(Refused, match=words):
        render({"networkPolicy": values})
    assert render({"networkPolicy": values, "environment": "sandbox"})
    assert render({"networkPolicy": {**values, "enabled": False}})


def test_a_server_that_nobody_uses_needs_no_peers() -> None:
    values: Values = {"networkPolicy": {"tracing": {"to": []}, "smtp": {"to": []}}}
    assert render({**values, "services": {"notify": {"enabled": False}}})


def test_the_preflight_of_the_next_upgrade_reaches_the_mail_server() -> None:
    """It runs under the policies of the previous release, which may have had no preflight."""
    objects = example("standard")
    (policy,) = (each for each in _policies(objects) if each["metadata"]["name"] == "muster-to-smtp-before")
    pod = {"metadata": {"labels": {"app.kubernetes.io/name": "muster", "muster/role": "preflight"}}}
    pod["metadata"]["labels"]["app.kubernetes.io/instance"] = "muster"
    assert _selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
    assert _egress(objects, pod, Peer({}, {}, ip_address(SERVERS["smtp"][0])), SERVERS["smtp"][1])


def test_only_the_clusters_resolver_is_asked_for_names() -> None:
    for name, resolver, port in (("standard", "kube-system", 53), ("openshift", "openshift-dns", 5353)):
        objects = example(name)
        _, pod = next(pods(objects))
        assert _egress(objects, pod, _in(resolver), port, "UDP")
        assert _egress(objects, pod, _in(resolver), port, "TCP")
        assert not _egress(objects, pod, Peer({}, {}, ip_address("8.8.8.8")), port, "UDP")


@pytest.mark.parametrize("site", SITES)
def test_clients_reach_pods_that_answer_requests_and_prometheus_every_serving_pod(site: str) -> None:
    objects = _objects(site)
    for name, pod in pods(objects):
        assert _ingress(objects, pod, _in("gateways")) == (_role(pod) in ("api", "all")), name
        assert _ingress(objects, pod, _in("monitoring")) == (_role(pod) in _SERVE), name
        assert not _ingress(objects, pod, _in("default")), name


@pytest.mark.parametrize("site", SITES)
def test_the_releases_own_jobs_call_its_services_and_its_pods_do_not(site: str) -> None:
    objects = _objects(site)
    api = next(pod for _, pod in pods(objects) if _role(pod) in ("api", "all"))
    for name, pod in pods(objects):
        assert _ingress(objects, api, _peer(pod)) == (_role(pod) in CALLING), name
        assert _egress(objects, pod, _peer(api), 8000) == (_role(pod) in CALLING), name


def test_no_webhook_reaches_an_address_that_is_not_public() -> None:
    """The service refuses such an address; the policy is a second barrier, and never a wider opening."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    (policy,) = (each for each in _policies(example("standard")) if each["metadata"]["name"] == "muster-to-webhooks")
    (rule,) = policy["spec"]["egress"]
    edges = [
        edge
        for peer in rule["to"]
        for network in (peer["ipBlock"]["cidr"], *peer["ipBlock"]["except"])
        for edge in (ip_network(network)[0], ip_network(network)[-1])
    ]
    addresses: list[Any] = [IPv4Address(drawn.getrandbits(32)) for _ in range(2_000)]
    addresses += [IPv6Address(drawn.getrandbits(128)) for _ in range(2_000)]
    reached = [address for address in (*addresses, *edges) if _is_peer(rule["to"], Peer({}, {}, address))]
    assert len(reached) > 1_500
    assert [address for address in reached if not is_public(address)] == []


def _objects(site: str) -> tuple[Object, ...]:
    return render(merged(_SITE, SITES[site]))


def _policies(objects: tuple[Object, ...]) -> list[Object]:
    return list(of_kind(objects, "NetworkPolicy").values())


def _role(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["muster/role"])


def _delivers(pod: Object) -> bool:
    return pod["metadata"]["labels"]["app.kubernetes.io/component"] == "notify" and _role(pod) in ("all", "worker")


def _reached(objects: tuple[Object, ...], pod: Object, elsewhere: dict[str, str]) -> set[str]:
    """The servers that a pod reaches: those `elsewhere` in the given namespaces, and the others at their addresses."""
    return {
        server
        for server, (address, port) in SERVERS.items()
        if _egress(
            objects, pod, _in(elsewhere[server]) if server in elsewhere else Peer({}, {}, ip_address(address)), port
        )
    }


def _in(namespace: str) -> Peer:
    return Peer({}, {"kubernetes.io/metadata.name": namespace})


def _peer(pod: Object) -> Peer:
    return Peer(pod["metadata"]["labels"], {})


def _egress(objects: tuple[Object, ...], pod: Object, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    return _flows(objects, pod, peer, port, protocol, "egress", "to")


def _ingress(objects: tuple[Object, ...], pod: Object, peer: Peer) -> bool:
    return _flows(objects, pod, peer, 8000, "TCP", "ingress", "from")


def _flows(objects: tuple[Object, ...], pod: Object, peer: Peer, port: int, protocol: str, way: str, ends: str) -> bool:
    rules = [
        rule
        for policy in _policies(objects)
        if _selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
        for rule in policy["spec"].get(way, ())
    ]
    at = {"port": port, "protocol": protocol}
    return any(at in rule["ports"] and (ends not in rule or _is_peer(rule[ends], peer)) for rule in rules)


def _is_peer(allowed: list[Object], peer: Peer) -> bool:
    return any(_matches(each, peer) for each in allowed)


def _matches(allowed: Object, peer: Peer) -> bool:
    if "ipBlock" in allowed:
        block = allowed["ipBlock"]
        inside = peer.address is not None and peer.address in ip_network(block["cidr"])
        return inside and not any(peer.address in ip_network(each) for each in block.get("except", ()))
    if peer.address is not None:
        return False
    if "namespaceSelector" in allowed and not _selects(allowed["namespaceSelector"], peer.namespace):
        return False
    # Without a namespace selector, it applies to the release's own namespace.
    own = "namespaceSelector" in allowed or not peer.namespace
    return own and _selects(allowed.get("podSelector", {}), peer.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))
