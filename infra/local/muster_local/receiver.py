"""A subscriber's webhook receiver, in its own process: verifies each message, saves it, and answers.

`POST /` receives a message and saves it as a JSON line before it answers. `PUT /secret` sets the signing secret;
`PUT /down` turns 503 for every message on (`yes`) or off.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx
import uvicorn
from pydantic import BaseModel, ConfigDict
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster_local.private import append

_START_SECONDS = 20.0


class Message(BaseModel):
    """A message that arrived while the receiver was up."""

    model_config = ConfigDict(frozen=True)

    id: str
    verified: bool
    raw: str

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.raw)
        return body


class Receiver:
    """A handle on the receiver's process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = url

    @classmethod
    async def start(cls, folder: Path, lives_with: int, host: str = "127.0.0.1") -> Self:
        """Start a receiver on a free port of `host` that saves its messages in `folder`.

        It exits when the process with the pid `lives_with` ends. Raises RuntimeError if it does not start.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = folder / "messages.jsonl"
        with append(folder / "receiver.log") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "muster_local.receiver", str(log), str(lives_with), host),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # the parent handles Ctrl-C
            )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        if not line:
            raise RuntimeError(f"the webhook receiver did not start; see {folder / 'receiver.log'}")
        return cls(process, line.decode().strip(), log)

    async def trust(self, secret: str) -> None:
        """Give the receiver the signing secret."""
        await self._put("secret", secret)

    async def go_down(self) -> None:
        """Answer 503 from now on."""
        await self._put("down", "yes")

    async def come_up(self) -> None:
        """Accept messages again."""
        await self._put("down", "no")

    def messages(self) -> list[Message]:
        """Every message received so far, in order of arrival."""
        if not self._log.exists():
            return []
        return [Message.model_validate_json(line) for line in self._log.read_text("utf-8").splitlines()]

    async def stop(self) -> None:
        """Stop the process, if it still runs."""
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.communicate()

    async def _put(self, control: str, value: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            (await http.put(f"{self.url}/{control}", content=value)).raise_for_status()


def build(log: BinaryIO) -> Starlette:
    """The receiver's application; it appends each message to `log` as a line."""
    webhook: Webhook | None = None
    down = False

    async def receive(request: Request) -> Response:
        if down:
            return Response(status_code=503)
        body = await request.body()
        verified = False
        if webhook is not None:
            try:
                webhook.verify(body, dict(request.headers))
                verified = True
            except WebhookVerificationError:
                pass
        message = Message(id=request.headers.get("webhook-id", ""), verified=verified, raw=body.decode())
        log.write(message.model_dump_json().encode() + b"\n")
        log.flush()
        return Response(status_code=204 if verified else 401)

    async def trust(request: Request) -> Response:
        nonlocal webhook
        webhook = Webhook((await request.body()).decode())
        return Response(status_code=204)

    async def switch(request: Request) -> Response:
        nonlocal down
        down = await request.body() == b"yes"
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", receive, methods=["POST"]),
            Route("/secret", trust, methods=["PUT"]),
            Route("/down", switch, methods=["PUT"]),
        ]
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def serve(log: Path, lives_with: int, host: str) -> None:
    """Serve on a free port of `host`, print the URL, and exit when the process `lives_with` ends."""
    listener = socket.create_server((host, 0))
    print(f"http://{host}:{listener.getsockname()[1]}", flush=True)
    with append(log) as lines:
        server = uvicorn.Server(uvicorn.Config(build(lines), log_level="warning", access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not serving.done() and _runs(lives_with):
            await asyncio.wait([serving], timeout=1)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
