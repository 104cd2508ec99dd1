"""The ASGI connection of one request, and how a response is sent to the client."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send


class ClientGone(Exception):
    """The client closed the connection before the response was complete."""


@dataclass(frozen=True)
class Connection:
    """The ASGI connection of one request."""

    scope: Scope
    receive: Receive
    send: Send

    async def body(self) -> bytes:
        """Return the whole body of the request. Raises ClientGone if the client disconnects first."""
        body = b""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            body += chunk
            if not message.get("more_body", False):
                return body

    def on_complete(self, callback: Callable[[], None]) -> "Connection":
        """Return a connection that calls `callback` just before the last bytes are sent.

        It is called before, not after, so that a response is recorded when the client has received it.
        """

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                callback()
            await self.send(message)

        return Connection(self.scope, self.receive, send)


Delivery = Callable[[Connection, Message, bytes], Awaitable[None]]
"""Sends the head (an ASGI `http.response.start`) and the body. Raises ClientGone if they are not sent in full."""


async def silence(connection: Connection, head: Message, body: bytes) -> None:  # noqa: ARG001 - a Delivery
    """Send nothing until the client disconnects. Always raises ClientGone."""
    while (await connection.receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


async def in_full(connection: Connection, head: Message, body: bytes) -> None:
    """Send the whole response."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body})
