"""How a response is sent to the client: in full, slowly, in part or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive, Scope, Send

ABORT: Final = "tedee.simulator.abort"
"""The scope extension of the server that resets the TCP connection: a function named `abort`."""

# Seconds in which a client on the same machine reads what was sent. A reset discards unread bytes.
READ_DELAY: Final = 0.02


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

    async def pause(self, seconds: float | None) -> None:
        """Wait that many seconds, or indefinitely if None. Raises ClientGone as soon as the client disconnects."""
        if seconds == 0:
            return
        try:
            async with asyncio.timeout(seconds):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise ClientGone

    async def reset(self) -> None:
        """Abort the TCP connection with RST. Always raises ClientGone."""
        self.scope["extensions"][ABORT]["abort"]()
        await self.pause(None)


Delivery = Callable[[Connection, Message, bytes], Awaitable[None]]
"""Sends the head (an ASGI `http.response.start`) and the body. Raises ClientGone if they are not sent in full."""


async def in_full(connection: Connection, head: Message, body: bytes) -> None:
    """Send the whole response."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body})


async def silence(connection: Connection, head: Message, body: bytes) -> None:  # noqa: ARG001 - a Delivery
    """Send nothing until the client disconnects."""
    await connection.pause(None)


async def reset(connection: Connection, head: Message, body: bytes) -> None:  # noqa: ARG001 - a Delivery
    """Reset the connection before any byte is sent."""
    await connection.reset()


async def reset_mid_body(connection: Connection, head: Message, body: bytes) -> None:
    """Send the head and half of the body, then reset the connection."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await connection.pause(READ_DELAY)
    await connection.reset()


def drip(size: int, interval: float) -> Delivery:
    """Return a delivery that sends the body in chunks of `size` bytes, with `interval` seconds before each."""

    async def deliver(connection: Connection, head: Message, body: bytes) -> None:
        await connection.send(head)
        for start in range(0, len(body), size):
            await connection.pause(interval)
            chunk = {"type": "http.response.body", "body": body[start : start + size]}
            await connection.send({**chunk, "more_body": start + size < len(body)})

    return deliver
