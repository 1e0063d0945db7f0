"""Strimzi's users can log in, its topics survive the loss of a broker, and both survive an uninstall."""

import pytest

from muster_contracts import SERVICES
from tests.chart.rendering import Refused, Values, of_kind, render


def _strimzi(**more: object) -> Values:
    return {"strimzi": {"enabled": True, "cluster": "kafka", **more}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strimzi": {"enabled": True}}, r"strimzi\.cluster is not set"),
        (
            {**_strimzi(), "provisioning": {"mode": "hook"}},
            r"strimzi\.enabled and provisioning\.topics both create the topics",
        ),
        (
            {**_strimzi(), "kafka": {"topicPrefix": "Agency_"}},
            r'kafka\.topicPrefix is "Agency_", which cannot begin the name of a KafkaTopic',
        ),
    ],
    ids=str,
)
def test_what_strimzi_cannot_do_is_refused(values: Values, words: str) -> None:
    with pytest.raises(Refused, match=words):
        render(values)


def test_an_uninstall_keeps_topics_and_users() -> None:
    objects = render(_strimzi())
    kept = [*of_kind(objects, "KafkaTopic").values(), *of_kind(objects, "KafkaUser").values()]
    assert {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in kept} == {"keep"}
    assert set(of_kind(objects, "KafkaUser")) == set(SERVICES)


@pytest.mark.parametrize(
    ("authentication", "protocol", "works"),
    [
        ("scram-sha-512", "SASL_SSL", True),
        ("tls", "SSL", True),
        ("scram-sha-512", "SSL", False),
        ("tls", "SASL_SSL", False),
    ],
)
def test_strimzis_users_can_log_in(authentication: str, protocol: str, works: bool) -> None:
    values = {**_strimzi(authentication=authentication), "kafka": {"securityProtocol": protocol}}
    if works:
        assert render(values)
    else:
        with pytest.raises(
            Refused, match=rf"strimzi\.authentication is {authentication}, and .* {protocol}, with which"
        ):
            render(values)


def test_production_has_three_replicas_of_a_topic() -> None:
    with pytest.raises(Refused, match=r"strimzi\.replicas is 2, but production needs at least 3, of which two are in"):
        render(_strimzi(replicas=2))
    assert render({**_strimzi(replicas=1), "environment": "sandbox"})
