"""The examples let clients do what the services allow."""

import pytest

from muster_entitlements.api.files import FILE_LIMIT
from muster_runtime.http.application import MEBIBYTE
from tests.chart.rendering import EXAMPLES, example, of_kind


@pytest.mark.parametrize("name", EXAMPLES)
def test_ingress_nginx_accepts_every_seat_file(name: str) -> None:
    for ingress in of_kind(example(name), "Ingress").values():
        if ingress["spec"]["ingressClassName"] == "nginx":
            size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
            assert int(size.removesuffix("g")) * 1024 * MEBIBYTE >= FILE_LIMIT
