"""Generates the schema that Helm checks and the README's table, from values.yaml and its comments."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from muster_contracts import SERVICES

Schema = dict[str, Any]

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<rest>.*)$")

_POSITIVE: Schema = {"type": "integer", "minimum": 1}
_NUMBER_OR_NULL: Schema = {"type": ["integer", "null"], "minimum": 1}
# `--set` makes a number of a word such as 60.
_WORDS: Schema = {"type": "array", "items": {"type": ["string", "integer"], "minLength": 1}}

# A name of an object of Kubernetes, or a domain; empty for none.
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME: Schema = {"type": "string", "pattern": rf"^({_LABEL}(\.{_LABEL})*)?$"}
_REQUIRED_NAME: Schema = _NAME | {"minLength": 1}

_PORTS: Schema = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1, "maximum": 65535}}
_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
_IPV4 = r"(\d{1,3}\.){3}\d{1,3}/(\d|[12]\d|3[0-2])"
_IPV6 = r"[0-9a-fA-F]*:[0-9a-fA-F:.]*/(\d|[1-9]\d|1[01]\d|12[0-8])"
_PEERS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "podSelector": {"type": "object"},
            "namespaceSelector": {"type": "object"},
            "ipBlock": {
                "type": "object",
                "required": ["cidr"],
                "additionalProperties": False,
                "properties": {
                    "cidr": {"type": "string", "pattern": f"^({_IPV4}|{_IPV6})$"},
                    "except": {"type": "array", "items": {"type": "string", "pattern": f"^({_IPV4}|{_IPV6})$"}},
                },
            },
        },
    },
}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_SETTINGS: Schema = {
    "type": "object",
    "patternProperties": {"^(MUSTER|OTEL)_[A-Z0-9_]+$": {"type": ["string", "number", "boolean"]}},
    "additionalProperties": False,
}
# Used in many places. A quantity is one of Kubernetes, such as 500m or 512Mi; null removes a default.
_DEFINITIONS: Schema = {
    "quantities": {
        "type": ["object", "null"],
        "additionalProperties": {
            "type": ["string", "number", "null"],
            "pattern": r"^\+?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?\d+)?$",
            "minimum": 0,
        },
    },
    "resources": {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {name: {"$ref": "#/$defs/quantities"} for name in ("requests", "limits")},
    },
}
_SECRETS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": _REQUIRED_NAME,
            "optional": {"type": "boolean"},
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["key", "path"],
                    "additionalProperties": False,
                    "properties": {"key": {"type": "string"}, "path": {"type": "string"}, "mode": {"type": "integer"}},
                },
            },
        },
    },
}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _networks(pattern: str) -> Schema:
    return {"type": "array", "items": {"type": "string", "pattern": f"^{pattern}$"}}


# The schemas of values whose defaults do not imply them, by path or by a path's last key.
_RULES: Mapping[str, Schema] = {
    "profile": _one_of("small", "standard", "large"),
    "environment": _one_of("production", "sandbox"),
    "image.pullPolicy": _one_of("Always", "IfNotPresent", "Never"),
    "image.registry": {"type": "string", "pattern": r"^([^\s/]*[^\s/:](/[^\s:]*)?)?$"},
    "image.pullSecrets": {"type": "array", "items": _REQUIRED_NAME},
    "tag": {"type": "string", "pattern": r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "kafka.securityProtocol": _one_of("PLAINTEXT", "SSL", "SASL_SSL"),
    "kafka.saslMechanism": _one_of("SCRAM-SHA-512", "OAUTHBEARER"),
    "kafka.topicPrefix": {"type": "string", "pattern": r"^[-\w.]*$"},
    "smtp.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "trustedCA.configMap": _NAME,
    "trustedCA.secret": _NAME,
    "trustedCA.key": {"type": "string", "minLength": 1},
    "tracing.ratio": {"type": "number", "minimum": 0, "maximum": 1},
    "settings": _SETTINGS,
    "secrets": _SECRETS,
    "ownerSecrets": _SECRETS,
    "replicas": _NUMBER_OR_NULL,
    "terminationGracePeriodSeconds": _NUMBER_OR_NULL,
    "resources": {"$ref": "#/$defs/resources"},
    "pods.serviceAccountName": _NAME,
    "pods.priorityClassName": _NAME,
    "pods.spread": _one_of("ScheduleAnyway", "DoNotSchedule"),
    "pods.secretFileMode": {"enum": [0o400, 0o440, 0o444]},
    "pods.tolerations": _OBJECTS,
    "pods.labels": _TEXTS,
    "pods.jobLabels": _TEXTS,
    "pods.nodeSelector": _TEXTS,
    "annotations": _TEXTS,
    "labels": _TEXTS,
    "migrations.mode": _one_of("hook", "job", "external"),
    "migrations.ttlSeconds": {"type": ["integer", "null"], "minimum": 0},
    "timeoutSeconds": _POSITIVE,
    "waitSeconds": _POSITIVE,
    "preflight.mode": _one_of("none", "hook"),
    "provisioning.mode": _one_of("none", "hook", "job"),
    "operations.args": _WORDS,
    "operations.service": _one_of("", *SERVICES),
    "operations.stopped": {"type": "array", "items": _one_of(*SERVICES)},
    "disruption.maxUnavailable": {"type": "integer", "minimum": 0},
    "minReplicas": _POSITIVE,
    "maxReplicas": _POSITIVE,
    "targetCPU": {"type": "integer", "minimum": 1, "maximum": 100},
    "lag": _POSITIVE,
    "pollingSeconds": _POSITIVE,
    "autoscaling.consumer.authentication": _NAME,
    "authenticationKind": _one_of("TriggerAuthentication", "ClusterTriggerAuthentication"),
    "http.domain": _NAME,
    "http.ingress.className": _NAME,
    "http.ingress.tlsSecret": _NAME,
    "parentRefs": _OBJECTS,
    "ports": _PORTS,
    "to": _PEERS,
    "networkPolicy.egress": {
        "type": "array",
        "items": {"type": "object", "additionalProperties": False, "properties": {"to": _PEERS, "ports": _OBJECTS}},
    },
    "networkPolicy.clients.from": _PEERS,
    "networkPolicy.metrics.from": _PEERS,
    "except": _networks(r"(\d{1,3}\.){3}\d{1,3}/([1-9]|[12]\d|3[0-2])"),
    # A policy may only except a part of the network that it allows, which is 2000::/3.
    "except6": _networks(r"[23][0-9a-f]{3}:[0-9a-f:]+/([4-9]|[1-9]\d|1[01]\d|12[0-8])"),
    "interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
    "cluster": _NAME,
    "namespace": _NAME,
    "strimzi.replicas": _POSITIVE,
    "strimzi.authentication": _one_of("scram-sha-512", "tls"),
}

# Blocks with any keys; all other blocks have fixed keys.
_OPEN = ("affinity", "securityContext")


@dataclass(frozen=True)
class Value:
    """A value with its path, the comment above it, and its default; a block has none."""

    path: str
    comment: str
    default: Any
    block: bool


def values_of(text: str) -> Iterator[Value]:
    """The values of a values.yaml, in the file's order. Raises ValueError for one without a comment."""
    defaults = yaml.safe_load(text)
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        if (found := _KEY.match(line)) and not _is_inside_value(path, defaults, len(found["indent"])):
            indent = len(found["indent"])
            path = [each for each in path if each[0] < indent] + [(indent, found["key"])]
            dotted = ".".join(key for _, key in path)
            default = _at(defaults, dotted)
            block = _is_block(dotted, default)
            if not comment and not (block and len(path) > 1):
                raise ValueError(f"{dotted} has no comment")
            yield Value(dotted, " ".join(comment), default, block)
        comment = []


def _is_inside_value(path: list[tuple[int, str]], defaults: Any, indent: int) -> bool:
    """Whether a line belongs to the default of a value above, which is a mapping or a list."""
    above = [key for at, key in path if at < indent]
    dotted = ".".join(above)
    return bool(above) and not _is_block(dotted, _at(defaults, dotted))


def _is_block(path: str, default: Any) -> bool:
    return isinstance(default, dict) and bool(default) and _rule(path) is None and path.split(".")[-1] not in _OPEN


def _at(defaults: Any, path: str) -> Any:
    for key in path.split("."):
        defaults = defaults[key]
    return defaults


def _rule(path: str) -> Schema | None:
    return _RULES.get(path) or _RULES.get(path.split(".")[-1])


def schema(text: str) -> str:
    """The JSON Schema of a values.yaml, which knows every key, and at the root those that a parent chart may add."""
    root: Schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _of_block()
    root["$defs"] = _DEFINITIONS
    root["properties"] |= {"global": {"type": "object"}, "enabled": {"type": "boolean"}}
    root["patternProperties"] = {"^x-": {}}  # where a site keeps what it repeats by YAML's anchors
    blocks: dict[str, Schema] = {"": root}
    for value in values_of(text):
        above, _, key = value.path.rpartition(".")
        made = _of_block() if value.block else _of_value(value)
        if value.comment:
            made = {"description": value.comment} | made
        blocks[above]["properties"][key] = made
        blocks[value.path] = made
    for service in blocks["services"]["properties"].values():
        service["properties"]["roles"] |= _overrides(blocks["roles"])
    return json.dumps(root, indent=2) + "\n"


def _of_block() -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _overrides(roles: Schema) -> Schema:
    """The schema of a service's `roles`: a service may override anything that a role has."""
    return {key: roles[key] for key in ("additionalProperties", "properties")}


def _of_value(value: Value) -> Schema:
    if (rule := _rule(value.path)) is not None:
        return dict(rule)
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer", "minimum": 0}
        case str():
            return {"type": "string"}
        case dict():
            return {"type": "object"}
    raise ValueError(f"{value.path}: its default implies no schema: add one to _RULES")


def table(text: str) -> str:
    """The values as a Markdown table."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in values_of(text):
        default = "" if value.block else f"`{json.dumps(value.default)}`"
        if value.comment:
            meaning = value.comment.replace("<", "\\<")
            rows.append(f"| `{value.path}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"
