"""What the examples and the chart's page say lets clients do what the services allow."""

import re

from infra.chart.generate import README
from muster_entitlements.api.files import FILE_LIMIT
from muster_runtime.http.application import MEBIBYTE


def test_the_page_lets_ingress_nginx_accept_every_seat_file() -> None:
    (size,) = re.findall(r"nginx\.ingress\.kubernetes\.io/proxy-body-size: (\d+)g", README.read_text("utf-8"))
    assert int(size) * 1024 * MEBIBYTE >= FILE_LIMIT
