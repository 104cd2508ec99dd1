"""The ways in which an answer reaches its caller, or does not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive, Scope, Send

ABORT: Final = "tedee.simulator.abort"
"""The scope extension by which the server lends its power to reset the TCP connection, a function named `abort`."""

# Long enough for a client on the same machine to have read what was sent before the reset overtakes it.
SETTLE: Final = 0.02


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


@dataclass(frozen=True)
class Connection:
    """One request's line to its caller, in ASGI's terms."""

    scope: Scope
    receive: Receive
    send: Send

    async def body(self) -> bytes:
        """The whole body of the request. Raises ClientGone if it does not come."""
        body = b""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            body += piece
            if not message.get("more_body", False):
                return body

    def announcing(self, complete: Callable[[], None]) -> "Connection":
        """The same, but that `complete` is called just before the last bytes are sent.

        Before, for a client must not be able to see an answer that the cloud has not yet recorded as given.
        """

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete()
            await self.send(message)

        return Connection(self.scope, self.receive, send)

    async def pause(self, seconds: float | None) -> None:
        """Wait that long, or for ever if None. Raises ClientGone as soon as the client is."""
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
"""Sends the head (an ASGI `http.response.start`) and the body. Raises ClientGone if not in full."""


async def whole(connection: Connection, head: Message, body: bytes) -> None:
    """The answer as it should be."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body})


async def silence(connection: Connection, head: Message, body: bytes) -> None:  # noqa: ARG001 - a Delivery
    """Nothing, until the client goes away."""
    await connection.pause(None)


async def reset(connection: Connection, head: Message, body: bytes) -> None:  # noqa: ARG001 - a Delivery
    """A connection reset before any byte."""
    await connection.reset()


async def reset_mid_body(connection: Connection, head: Message, body: bytes) -> None:
    """Head and half of the body, then a connection reset."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await connection.pause(SETTLE)
    await connection.reset()


def drip(size: int, interval: float) -> Delivery:
    """The body by `size` bytes, with `interval` seconds before each such piece."""

    async def deliver(connection: Connection, head: Message, body: bytes) -> None:
        await connection.send(head)
        for start in range(0, len(body), size):
            await connection.pause(interval)
            piece = {"type": "http.response.body", "body": body[start : start + size]}
            await connection.send({**piece, "more_body": start + size < len(body)})

    return deliver
