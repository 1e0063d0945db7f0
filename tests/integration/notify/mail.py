"""A real SMTP server that keeps the messages, and refuses them on request."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult


@dataclass
class MailServer:
    """`refuse_recipient` and `refuse_message` are answers, such as "550 no such mailbox".

    With a `password`, a client must log in to send. While it is not `open`, no message gets its answer.
    """

    port: int = 0
    password: str | None = None
    refuse_recipient: str | None = None
    refuse_message: str | None = None
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    connections: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def handle_EHLO(self, server: SMTP, session: Any, _envelope: Any, hostname: str, answer: Any) -> Any:  # noqa: N802
        self.connections += 1
        session.host_name = hostname
        return answer

    def authenticate(self, _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, login: Any) -> AuthResult:
        """Whether a login's password is correct."""
        return AuthResult(success=login.password.decode() == self.password, handled=False)

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if self.refuse_recipient:
            return self.refuse_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Any, envelope: Any) -> str:  # noqa: N802
        await self.open.wait()
        if self.refuse_message:
            return self.refuse_message
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.extend(envelope.rcpt_tos)
        return "250 OK"


@asynccontextmanager
async def mail_server(server: MailServer) -> AsyncIterator[MailServer]:
    """Serve on the server's port (0: a free one) until the block ends, and with it every connection."""
    loop = asyncio.get_running_loop()
    login = {"authenticator": server.authenticate, "auth_required": True, "auth_require_tls": False}
    connections: list[SMTP] = []

    def serve() -> SMTP:
        asked: dict[str, Any] = {} if server.password is None else login
        connections.append(SMTP(server, hostname="mail.test", enable_SMTPUTF8=True, loop=loop, **asked))
        return connections[-1]

    listening = await loop.create_server(serve, "127.0.0.1", server.port)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()
