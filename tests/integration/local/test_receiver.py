"""The webhook receiver: a process that keeps what it is sent, and whether the signature was valid."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from muster_local.private import check
from muster_local.receiver import Receiver
from muster_runtime.clock import SystemClock
from tests.support.eventually import eventually

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = '{"type":"muster.billing.InvoicePaid.v1"}'


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    receiver = await Receiver.start(tmp_path, os.getpid())
    await receiver.trust(SECRET)
    yield receiver
    await receiver.stop()


async def _send(url: str, body: str, signed: str = BODY) -> int:
    now = SystemClock().now()
    headers = {
        "webhook-id": "dlv_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("dlv_1", now, signed),
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.post(url, content=body, headers=headers)).status_code


async def test_a_signed_message_is_kept(receiver: Receiver) -> None:
    assert await _send(receiver.url, BODY) == 204
    (message,) = receiver.messages()
    assert (message.id, message.verified, message.raw) == ("dlv_1", True, BODY)


async def test_what_it_keeps_is_private(receiver: Receiver, tmp_path: Path) -> None:
    assert await _send(receiver.url, BODY) == 204
    assert {"messages.jsonl", "receiver.log"} <= {path.name for path in tmp_path.iterdir()}
    check(tmp_path)


async def test_a_forged_message_is_recognized(receiver: Receiver) -> None:
    assert await _send(receiver.url, BODY.replace("Paid", "Voided"), signed=BODY) == 401
    (message,) = receiver.messages()
    assert not message.verified


async def test_while_it_is_down_it_keeps_nothing(receiver: Receiver) -> None:
    await receiver.go_down()
    assert await _send(receiver.url, BODY) == 503
    assert receiver.messages() == []
    await receiver.come_up()
    assert await _send(receiver.url, BODY) == 204


async def test_it_ends_with_the_process_that_owns_it(tmp_path: Path) -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    receiver = await Receiver.start(tmp_path, other.pid)
    await receiver.trust(SECRET)
    await other.communicate(b"\n")

    async def gone() -> bool:
        try:
            await _send(receiver.url, BODY)
        except httpx.TransportError:
            return True
        return False

    await eventually(gone)
    await receiver.stop()
