"""Which addresses a webhook may point to."""

import subprocess
import sys
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from muster_notify.adapters.addresses import AddressPolicy, AddressRefused, resolve
from muster_notify.domain.urls import Address, check_url, is_public, shown_url
from muster_runtime.errors import InvalidInput

NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",  # noqa: S104
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_known(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111"])
def test_a_public_address_is_recognized(address: str) -> None:
    assert is_public(ip_address(address))


async def test_a_host_with_one_private_address_among_public_ones_is_refused() -> None:
    async def mixed(_: str) -> Sequence[Address]:
        return [ip_address("8.8.8.8"), ip_address("10.0.0.1")]

    with pytest.raises(AddressRefused) as refused:
        await AddressPolicy(allow_private=False, resolve=mixed).addresses("agency.example")
    assert "10.0.0.1" not in str(refused.value)


async def test_the_refusal_does_not_say_whether_a_name_exists_inside_the_network() -> None:
    async def unknown(_: str) -> Sequence[Address]:
        raise OSError("no such name")

    async def internal(_: str) -> Sequence[Address]:
        return [ip_address("10.96.0.1")]

    refusals = set()
    for found in (unknown, internal):
        with pytest.raises(AddressRefused) as refused:
            await AddressPolicy(allow_private=False, resolve=found).addresses("kubernetes.default.svc")
        refusals.add(str(refused.value))
    assert len(refusals) == 1


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "::1"])
async def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        await AddressPolicy(allow_private=False).addresses(host)


async def test_the_sandbox_may_allow_private_addresses() -> None:
    assert list(await AddressPolicy(allow_private=True).addresses("127.0.0.1")) == [ip_address("127.0.0.1")]
    assert ip_address("127.0.0.1") in await resolve("localhost")


HANGS = """
import asyncio, contextlib, socket, threading
from muster_notify.adapters.addresses import resolve
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()

async def main():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await resolve("agency.example")

asyncio.run(main())
"""


def test_a_process_ends_while_a_name_is_still_being_resolved() -> None:
    assert subprocess.run([sys.executable, "-c", HANGS], timeout=10, check=False).returncode == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://agency.example/",
        "ftp://agency.example/",
        "https://",
        "https:///path",
        "https://user:word@agency.example/",
        "https://agency.example/#part",
        "https://agency.example:99999/",
        "https://agency.example/a b",
        "https://agency.example/\n",
        "https://ägency.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]:8443/x",
        "https://[nonsense/",
        "https://[v1.fe80::a]/",
        "https://[2606:4700:4700::1111%25eth0]/",
        "https://a..b/",
        "https://.agency.example/",
        "https://agency.example../",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 126 + "example/",
        "https://8.8.8.256/",
        "https://8.8.8.010/",
        "https://134744072/",
        "https://agency%2eexample/",
        "https://agency.example\\x/",
        "https://agency.example:0/",
        "agency.example",
        "https://agency.example/" + "x" * 2000,
    ],
)
def test_a_url_that_is_not_allowed_is_refused_with_the_rule(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_url(url, allow_private=False)
    assert refused.value.extensions["errors"][0]["field"] == "url"


@pytest.mark.parametrize(
    "host",
    [
        "agency.example:8443",
        "Agency.Example.",
        "xn--ffentlich-z7a.example",
        "my_hooks.1.agency-2.example",
        "a" * 63 + ".example",
        "a." * 125 + "abc",
        "8.8.8.8",
        "[2606:4700:4700::1111]:8443",
    ],
)
def test_a_public_https_url_is_allowed(host: str) -> None:
    check_url(f"https://{host}/hooks?x=1", allow_private=False)


def test_the_sandbox_may_allow_http_to_loopback() -> None:
    check_url("http://127.0.0.1:8080/", allow_private=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://agency.example", "https://agency.example"),
        ("https://agency.example:8443/", "https://agency.example:8443/"),
        ("https://agency.example/hooks/s3cret", "https://agency.example/…"),
        ("https://[2606:4700::1]:8443/hooks", "https://[2606:4700::1]:8443/…"),
        ("https://agency.example?code=s3cret", "https://agency.example/…"),
        ("https://agency.example/?code=s3cret", "https://agency.example/…"),
        ("https://agency.example/;s3cret", "https://agency.example/…"),
        ("https://agency.example//s3cret", "https://agency.example/…"),
    ],
)
def test_of_a_url_only_its_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
