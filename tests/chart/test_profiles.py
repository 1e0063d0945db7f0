"""A value for a role or a service that does not run is refused, not ignored."""

import pytest

from muster_contracts import SERVICES
from tests.chart.rendering import Refused, Values, render


@pytest.mark.parametrize(
    ("profile", "values", "words"),
    [
        (
            "small",
            {"roles": {"api": {"replicas": 5}}},
            r"roles\.api\.replicas: the profile small.* set roles\.all instead",
        ),
        (
            "small",
            {"roles": {"worker": {"terminationGracePeriodSeconds": 300}}},
            r"roles\.worker\.terminationGracePeriodSeconds: the profile small",
        ),
        (
            "standard",
            {"roles": {"all": {"replicas": 5}}},
            r"roles\.all\.replicas: the profile standard.* set roles\.api,",
        ),
        (
            "small",
            {"services": {"billing": {"roles": {"consumer": {"replicas": 5}}}}},
            r"services\.billing\.roles\.consumer: the profile small",
        ),
        (
            "small",
            {"roles": {"api": {"resources": {"requests": {"cpu": "1"}}}}},
            r"roles\.api\.resources: the profile small.* set roles\.all instead",
        ),
        (
            "large",
            {"services": {"billing": {"roles": {"all": {"replicas": 5}}}}},
            r"services\.billing\.roles\.all: the profile large has a Deployment for each role",
        ),
    ],
    ids=str,
)
def test_what_is_set_for_a_role_that_the_profile_does_not_use_is_refused(
    profile: str, values: Values, words: str
) -> None:
    with pytest.raises(Refused, match=words):
        render({"profile": profile, **values})


def test_a_release_without_services_is_refused() -> None:
    with pytest.raises(Refused, match=r"services: none is enabled: set services\.<service>\.enabled to true"):
        render({"services": {name: {"enabled": False} for name in SERVICES}})
