"""How a fault sends a response to the client: slowly or in part."""

import asyncio
import socket
import struct
from typing import Final

from starlette.types import Message

from exporter.simulator.connection import ClientGone, Connection, Delivery
from exporter.simulator.server import TRANSPORT

READ_DELAY: Final = 0.02
"""Seconds in which a client on the same machine reads what was sent. A reset discards unread bytes."""

RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: close() discards unsent data and sends RST instead of FIN."""


async def pause(connection: Connection, seconds: float | None) -> None:
    """Wait that many seconds, or indefinitely if None. Raises ClientGone as soon as the client disconnects."""
    if seconds == 0:
        return
    try:
        async with asyncio.timeout(seconds):
            while (await connection.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
    raise ClientGone


async def reset(connection: Connection, head: Message, body: bytes) -> None:
    """Reset the TCP connection before any byte is sent."""
    await _abort(connection)


async def reset_mid_body(connection: Connection, head: Message, body: bytes) -> None:
    """Send the head and half of the body, then reset the TCP connection."""
    await connection.send(head)
    await connection.send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    await pause(connection, READ_DELAY)
    await _abort(connection)


def drip(size: int, interval: float) -> Delivery:
    """Return a delivery that sends the body in chunks of `size` bytes, with `interval` seconds before each."""

    async def deliver(connection: Connection, head: Message, body: bytes) -> None:
        await connection.send(head)
        for start in range(0, len(body), size):
            await pause(connection, interval)
            chunk = {"type": "http.response.body", "body": body[start : start + size]}
            await connection.send({**chunk, "more_body": start + size < len(body)})

    return deliver


async def _abort(connection: Connection) -> None:
    """Abort the TCP connection with RST. Always raises ClientGone."""
    transport: asyncio.Transport = connection.scope["extensions"][TRANSPORT]["transport"]
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    transport.abort()
    await pause(connection, None)
