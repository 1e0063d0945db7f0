"""Values that cannot work are refused before anything changes, with a message that says what to do."""

import re
from typing import Any

import pytest

from tests.chart.rendering import EXAMPLES, Refused, Values, render

STANDARD: Values = {"profile": "standard"}
DIGEST = f"sha256:{0:064}"
BOTH = {"tag": "0.1.0", "digest": DIGEST}

# Values that the schema refuses, and the words of the refusal that say where and why.
WRONG: list[tuple[Values, str]] = [
    ({"profile": "huge"}, r"at '/profile'.*'small', 'standard', 'large'"),
    ({"environment": "test"}, "at '/environment'"),
    ({"kafka": {"bootstrapServers": "kafka:9093"}}, "at '/kafka'.*'bootstrapServers' not allowed"),
    ({"kafka": {"securityProtocol": "SASL_PLAINTEXT"}}, "at '/kafka/securityProtocol'"),
    ({"services": {"payments": {"enabled": True}}}, "at '/services'.*'payments' not allowed"),
    ({"services": {"billing": {"secrets": ["muster-billing"]}}}, "at '/services/billing/secrets/0'.*want object"),
    ({"services": {"billing": {"roles": {"consumer": {"replica": 2}}}}}, "'replica' not allowed"),
    ({"roles": {"api": {"replicas": 0}}}, "at '/roles/api/replicas'"),
    ({"roles": {"api": {"replicas": "2"}}}, "at '/roles/api/replicas'.*got string"),
    ({"image": {"services": {"digest": "0123"}}}, "at '/image/services/digest'"),
    ({"services": {"notify": {"digest": "0123"}}}, "at '/services/notify/digest'"),
    ({"settings": {"LOG_LEVEL": "debug"}}, "at '/settings'.*'LOG_LEVEL' not allowed"),
    ({"migrations": {"mode": "init"}}, "at '/migrations/mode'"),
    ({"autoscaling": {"consumer": {"minReplicas": 0}}}, "at '/autoscaling/consumer/minReplicas'"),
    ({"networkPolicy": {"webhooks": {"except": ["10.0.0.0"]}}}, "at '/networkPolicy/webhooks/except/0'"),
    ({"networkPolicy": {"postgres": {"ports": ["5432"]}}}, "at '/networkPolicy/postgres/ports/0'"),
    ({"pods": {"spread": "Never"}}, "at '/pods/spread'"),
    ({"pods": {"secretFileMode": 440}}, "at '/pods/secretFileMode'.*256, 288, 292"),  # 0440, meant in octal
    ({"networkPolicies": {"enabled": False}}, "'networkPolicies' not allowed"),
    ({"kafka": {"x-names": []}}, "at '/kafka'.*'x-names' not allowed"),
    ({"tracing": {"ratio": 5}}, "at '/tracing/ratio'"),
    ({"monitoring": {"podMonitor": {"interval": "30"}}}, "at '/monitoring/podMonitor/interval'"),
    ({"operations": {"service": "payments"}}, "at '/operations/service'"),
    ({"http": {"domain": "https://muster.gov"}}, "at '/http/domain'"),
    ({"image": {"registry": "https://registry.example.gov"}}, "at '/image/registry'"),
    ({"image": {"pullSecrets": ["Registry"]}}, "at '/image/pullSecrets/0'"),
    ({"pods": {"serviceAccountName": "my_account"}}, "at '/pods/serviceAccountName'"),
    ({"kafka": {"topicPrefix": "agency/"}}, "at '/kafka/topicPrefix'"),
    ({"networkPolicy": {"webhooks": {"except": ["2001:db8::/32"]}}}, "at '/networkPolicy/webhooks/except/0'"),
    ({"networkPolicy": {"webhooks": {"except6": ["fc00::/7"]}}}, "at '/networkPolicy/webhooks/except6/0'"),
    ({"networkPolicy": {"webhooks": {"except6": ["2000::/3"]}}}, "at '/networkPolicy/webhooks/except6/0'"),
    (
        {"networkPolicy": {"kafka": {"to": [{"ipBlock": {"cidr": "10.0.0.1"}}]}}},
        "at '/networkPolicy/kafka/to/0.*/cidr'",
    ),
    ({"networkPolicy": {"kafka": {"to": [{"ipblock": {}}]}}}, "at '/networkPolicy/kafka/to/0'.*'ipblock' not allowed"),
    ({"networkPolicy": {"metrics": {"from": [{}]}}}, "at '/networkPolicy/metrics/from/0'"),
    ({"image": {"services": {"tag": "v 1"}}}, "at '/image/services/tag'"),
    ({"trustedCA": {"key": ""}}, "at '/trustedCA/key'"),
]

# Well-formed values that cannot work.
HOPELESS: list[tuple[Values, str]] = [
    ({"kafka": {"bootstrap": ""}}, "kafka.bootstrap is not set: name every broker"),
    (
        {"kafka": {"bootstrap": "kafka-0.example.gov"}},
        'kafka.bootstrap has "kafka-0.example.gov", which is not host:port',
    ),
    ({"kafka": {"bootstrap": "kafka-0:9093;kafka-1:9093"}}, "which is not host:port: name every broker, separated by"),
    (
        {
            "kafka": {"saslMechanism": "OAUTHBEARER"},
            "settings": {"MUSTER_KAFKA_TOKEN_URL": "https://login.example.gov"},
        },
        "services.billing.settings.MUSTER_KAFKA_CLIENT_ID is not set, which OAUTHBEARER needs",
    ),
    ({"oidc": {"issuer": ""}}, "oidc.issuer is not set"),
    ({"oidc": {"issuer": "login.example.gov"}}, 'oidc.issuer is "login.example.gov", which is not a URL'),
    ({"oidc": {"issuer": "http://login.example.gov"}}, "oidc.issuer is .*, which production refuses: use https"),
    (
        {"oidc": {"issuer": "muster", "jwks": "http://login.example.gov/keys"}},
        "oidc.jwks is .*, which production refuses: use https",
    ),
    (
        {"services": {"billing": {"settings": {"MUSTER_KAFKA_TOKEN_URL": "http://login/token"}}}},
        'MUSTER_KAFKA_TOKEN_URL of billing is "http://login/token", which production refuses: use https',
    ),
    ({"tracing": {"endpoint": "collector:4318"}}, 'tracing.endpoint is "collector:4318", which is not a URL'),
    (
        {"operations": {"args": ["streams", "check"]}},
        'operations.args begins with "streams".*begin with muster_operator',
    ),
    ({"services": {"notify": {"enabled": False}}, "operations": {"stopped": ["notify"]}}, "does not run notify"),
    ({"operations": {"args": ["muster_operator", "agency", "--token=x"]}}, "operations.args has --token.*a Secret"),
    ({"smtp": {"host": ""}}, "smtp.host is not set, which notify needs in production"),
    ({"kafka": {"securityProtocol": "PLAINTEXT"}}, "which production refuses: use SSL or SASL_SSL"),
    (
        {
            "kafka": {"securityProtocol": "PLAINTEXT"},
            "settings": {"MUSTER_ALLOW_PLAINTEXT": True},
            "services": {"billing": {"settings": {"MUSTER_ALLOW_PLAINTEXT": False}}},
        },
        "which production refuses: use SSL or SASL_SSL",
    ),
    ({"trustedCA": {"configMap": "a", "secret": "b"}}, "trustedCA.configMap and trustedCA.secret are both set"),
    ({"image": {"services": BOTH}}, "image.services.tag and image.services.digest are both set.*the digest would win"),
    ({"image": {"operator": BOTH}}, "image.operator.tag and image.operator.digest are both set"),
    ({"services": {"notify": BOTH}}, "services.notify.tag and services.notify.digest are both set"),
    ({"fullnameOverride": "a" * 31}, "has 31 characters.*use at most 30"),
    ({"fullnameOverride": "1muster"}, 'The name "1muster" cannot begin the name of a Service.*begin with a letter'),
    ({"fullnameOverride": "My_Muster"}, 'The name "My_Muster" cannot begin the name of a Service'),
    ({"settings": {"MUSTER_HTTP_PORT": 80}}, "settings.MUSTER_HTTP_PORT: the probes and mounts of this chart need it"),
    (
        {"services": {"billing": {"settings": {"MUSTER_HTTP_PORT": 9000}}}},
        "services.billing.settings.MUSTER_HTTP_PORT: the probes and mounts of this chart need its default",
    ),
    ({"settings": {"MUSTER_ENVIRONMENT": "sandbox"}}, "settings.MUSTER_ENVIRONMENT: set environment instead"),
    (
        {"services": {"notify": {"settings": {"MUSTER_TOPIC_PREFIX": "x."}}}},
        "services.notify.settings.MUSTER_TOPIC_PREFIX: set kafka.topicPrefix instead",
    ),
    ({"pods": {"labels": {"muster/role": "x"}}}, "pods.labels.muster/role: the chart sets it"),
    ({"pods": {"securityContext": {"runAsNonRoot": False}}}, "complies with the restricted Pod Security Standard"),
    ({"pods": {"securityContext": {"runAsUser": 0}}}, "complies with the restricted Pod Security Standard"),
    *(
        ({"pods": {"securityContext": context}}, "complies with the restricted Pod Security Standard")
        for context in (
            {"runAsNonRoot": None},
            {"seccompProfile": {"type": "Unconfined"}},
            {"seccompProfile": None},
            {"seccompProfile": "RuntimeDefault"},
            {"appArmorProfile": {"type": "Unconfined"}},
            {"windowsOptions": {"hostProcess": True}},
            {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]},
            {"seLinuxOptions": {"user": "system_u"}},
            {"seLinuxOptions": {"role": "system_r"}},
            {"seLinuxOptions": {"type": "spc_t"}},
        )
    ),
    ({"pods": {"jobLabels": {"muster/role": "x"}}}, "pods.jobLabels.muster/role: the chart sets it"),
    (
        {"settings": {"MUSTER_INSTANCE": "prod-a"}},
        "settings.MUSTER_INSTANCE: two pods with the same name would act as one.*remove it",
    ),
    (
        {"services": {"notify": {"settings": {"MUSTER_INSTANCE": "prod-a"}}}},
        "services.notify.settings.MUSTER_INSTANCE: two pods with the same name",
    ),
    ({"settings": {"MUSTER_SUBJECT_KEY": "x"}}, "settings.MUSTER_SUBJECT_KEY is a secret: put it into a Secret"),
    (
        {"operations": {"settings": {"MUSTER_ADMIN_DSN": "x"}}},
        "operations.settings.MUSTER_ADMIN_DSN is a secret.*name that Secret in operations.secrets",
    ),
    (
        {"services": {"notify": {"enabled": False, "settings": {"MUSTER_SMTP_PASSWORD": "x"}}}},
        "services.notify.settings.MUSTER_SMTP_PASSWORD is a secret",
    ),
    (
        {"settings": {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer abc"}},
        "settings.OTEL_EXPORTER_OTLP_HEADERS may contain a secret.*send traces to a collector of your own",
    ),
    (
        {"preflight": {"mode": "hook"}, "services": {"billing": {"secrets": [{"name": "pg"}, {"name": "kafka"}]}}},
        "services.billing.secrets has 2 Secrets without items.*Set items for all but one",
    ),
    (
        {"services": {"notify": {"settings": {"MUSTER_SMTP_PASSWORD": "x"}}}},
        "services.notify.settings.MUSTER_SMTP_PASSWORD is a secret",
    ),
    ({"services": {"billing": {"secrets": []}}}, "services.billing.secrets is empty: name the Secret"),
    (
        {"services": {"billing": {"ownerSecrets": []}}},
        "services.billing.ownerSecrets is empty, and migrations.mode is hook.*set migrations.mode to external",
    ),
    (
        {"services": {"billing": {"roles": {"worker": {"replicas": 2}}}}},
        "services.billing.roles.worker: this service has no such role. It has api, consumer, relay, scheduler",
    ),
    (
        {**STANDARD, "services": {"billing": {"roles": {"consumer": {"replicas": 13}}}}},
        "billing-consumer has 13 replicas, but its topics have 12 partitions.*Use at most 12",
    ),
    ({"roles": {"all": {"replicas": 13}}}, "billing-all has 13 replicas, but its topics have 12"),
    (
        {**STANDARD, "autoscaling": {"consumer": {"enabled": True, "maxReplicas": 13}}},
        "autoscaling.consumer.maxReplicas is 13, but the topics of billing have 12 partitions",
    ),
    (
        {**STANDARD, "autoscaling": {"consumer": {"enabled": True}}},
        "autoscaling.consumer.authentication is not set: name the TriggerAuthentication",
    ),
    (
        {
            **STANDARD,
            "autoscaling": {"consumer": {"enabled": True}},
            "kafka": {"securityProtocol": "SSL"},
            "settings": {"MUSTER_KAFKA_CERTIFICATE_FILE": "/etc/muster/secrets/tls.crt"},
        },
        "autoscaling.consumer.authentication is not set",
    ),
    (
        {
            **STANDARD,
            "autoscaling": {"api": {"enabled": True}},
            "roles": {"api": {"resources": {"requests": {"cpu": None}, "limits": {"cpu": None}}}},
        },
        "autoscaling.api is enabled, but billing-api requests no CPU.*set roles.api.resources.requests.cpu",
    ),
    (
        {
            **STANDARD,
            "autoscaling": {"api": {"enabled": True}},
            "roles": {"api": {"resources": {"requests": None, "limits": None}}},
        },
        "billing-api requests no CPU",
    ),
    ({"autoscaling": {"api": {"minReplicas": 7}}}, "autoscaling.api.minReplicas is 7 and maxReplicas 6"),
    ({"autoscaling": {"consumer": {"enabled": True}}}, "small has no separate consumers"),
    ({"autoscaling": {"api": {"enabled": True}}}, "small has no separate api"),
    (
        {**STANDARD, "roles": {"consumer": {"terminationGracePeriodSeconds": 5}}},
        "billing-consumer has terminationGracePeriodSeconds 5, but needs up to .* s from SIGTERM to its end",
    ),
    ({"disruption": {"maxUnavailable": 0}}, "disruption.maxUnavailable is 0: a node drain would never finish"),
    ({"http": {"ingress": {"enabled": True}}}, "http.domain is not set: a route or an ingress needs it"),
    ({"http": {"domain": "x", "gateway": {"enabled": True}}}, "http.gateway.parentRefs is empty: name the Gateway"),
    ({"provisioning": {"mode": "job", "databases": False, "topics": False}}, "set the mode to none"),
    ({"cloudnativepg": {"enabled": True}}, "cloudnativepg.cluster is not set"),
    (
        {"cloudnativepg": {"enabled": True, "cluster": "p"}, "provisioning": {"mode": "hook"}},
        "cloudnativepg.enabled and provisioning.databases both create the databases",
    ),
    (
        {"cloudnativepg": {"enabled": True, "cluster": "p"}},
        "migrations.mode is hook, which migrates before this release has created the databases",
    ),
    ({"provisioning": {"mode": "job"}}, "migrations.mode is hook, which migrates before this release has created"),
    (
        {"strimzi": {"enabled": True, "cluster": "k"}, "preflight": {"mode": "hook"}},
        "preflight.mode is hook, which checks before this release has created the databases and topics",
    ),
]

# Values that are right, although they come close to breaking a rule.
RIGHT: list[Values] = [
    {"global": {"imageRegistry": "registry.example.gov"}},  # a parent chart's
    {"image": {"services": {"digest": DIGEST}}, "services": {"notify": {"tag": "0.2.0"}}},
    {"services": {"notify": {"enabled": False}}, "smtp": {"host": ""}},
    {"provisioning": {"mode": "job", "databases": False}},
    {"pods": {"securityContext": {"runAsUser": 1000, "fsGroup": 1000}}},
    {
        "pods": {
            "securityContext": {
                "seccompProfile": {"type": "Localhost", "localhostProfile": "muster.json"},
                "appArmorProfile": {"type": "RuntimeDefault"},
                "seLinuxOptions": {"level": "s0:c1,c2", "type": "container_t"},
            }
        }
    },
    {"environment": "sandbox", "kafka": {"securityProtocol": "PLAINTEXT"}, "smtp": {"from": ""}},
    {"kafka": {"securityProtocol": "PLAINTEXT"}, "settings": {"MUSTER_ALLOW_PLAINTEXT": True}},
    {
        "kafka": {"securityProtocol": "PLAINTEXT"},
        "services": {
            **{name: {"settings": {"MUSTER_ALLOW_PLAINTEXT": "true"}} for name in ("enrollment", "entitlements")},
            "billing": {"settings": {"MUSTER_ALLOW_PLAINTEXT": True}},
            "notify": {"enabled": False},
        },
    },
    {"oidc": {"issuer": "http://login"}, "settings": {"MUSTER_ALLOW_PLAINTEXT": True}},
    {"migrations": {"mode": "external"}, "services": {"billing": {"ownerSecrets": []}}},
    {"services": {"billing": {"roles": {"all": {"replicas": 12}}}}},
    {"roles": {"all": {"terminationGracePeriodSeconds": 300}}},
    {
        **STANDARD,
        "autoscaling": {"api": {"enabled": True}},
        "roles": {"api": {"resources": {"requests": {"cpu": None}}}},  # the limit counts as the request
    },
    {**STANDARD, "autoscaling": {"consumer": {"enabled": True}}, "kafka": {"securityProtocol": "SSL"}},
    {"migrations": {"ttlSeconds": None}},
    {"enabled": True},  # a parent chart's condition
    {"x-resources": {"limits": {"cpu": "1"}}, "x-names": ["a"]},  # YAML anchors
    {"kafka": {"bootstrap": "kafka-0.example.gov:9093, [2001:db8::1]:9093"}},
    {"oidc": {"issuer": "muster", "jwks": "/etc/muster/keys.json"}},
    {"image": {"registry": "registry.example.gov:5000/program/"}},
    {"kafka": {"topicPrefix": "Agency_"}},
    {"networkPolicy": {"webhooks": {"except": ["10.0.0.0/8"], "except6": ["2600:1f00::/24", "3fff::/20"]}}},
]


@pytest.mark.parametrize(("values", "words"), [*WRONG, *HOPELESS], ids=lambda each: re.sub(r"\W+", "-", str(each))[:50])
def test_bad_values_are_refused_with_the_reason(values: Values, words: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert re.search(words, str(refused.value), flags=re.DOTALL), refused.value


@pytest.mark.parametrize("values", RIGHT, ids=lambda each: re.sub(r"\W+", "-", str(each))[:50])
def test_good_values_are_accepted(values: dict[str, Any]) -> None:
    assert render(values)


def test_the_examples_differ_only_in_what_they_say() -> None:
    assert {"small", "standard", "large", "openshift", "bigbang", "argocd", "flux", "terraform"} <= set(EXAMPLES)
