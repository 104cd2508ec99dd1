"""Serves an ASGI application over loopback HTTP, from a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .delivery import ABORT

# SO_LINGER on, for 0 seconds: closing throws away what is unsent and sends RST instead of FIN.
RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)

# Longer than the exporter's pauses between calls, so that a connection is there to be used again.
KEEP_ALIVE: Final = 120

# Seconds that calls under way have to notice that they are cut off.
STOP: Final = 1.0


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, lending each request the means to reset its TCP connection (see `delivery.ABORT`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        # asyncio does so itself, but not for sockets made by `socket.create_server`; without, head and body of an
        # answer are 40 ms apart.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        """A request begins: uvicorn makes its scope, and the extension goes into it."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.abort}}

    def abort(self) -> None:
        """Reset the connection at once."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self.transport.abort()


@dataclass(frozen=True)
class Address:
    """Where the application is served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Iterator[Address]:
    """Serve an application while the context lasts; port 0 takes any that is free.

    Raises OSError if the port is taken. At the end, calls under way are cut off.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # Access logging is off in the protocol: said here, uvicorn would reconfigure the process's loggers.
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, app, listener, stop), name="simulated-cloud", daemon=True)
    thread.start()
    try:
        # The socket listens already: a client that comes before the thread is ready simply waits.
        yield Address(host, listener.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=STOP + 1)


def _run(loop: asyncio.AbstractEventLoop, app: ASGIApp, listener: socket.socket, stop: asyncio.Event) -> None:
    try:
        loop.run_until_complete(_answer_until(stop, app, listener))
    finally:
        loop.close()


async def _answer_until(stop: asyncio.Event, app: ASGIApp, listener: socket.socket) -> None:
    # Uvicorn's protocol without uvicorn's server, which waits for calls under way and takes its time to stop.
    # Access logging is off in the protocol: said to the configuration, it would rearrange the process's loggers.
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, timeout_keep_alive=KEEP_ALIVE)
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Protocol(config=config, server_state=state, app_state={}), sock=listener
    )
    await stop.wait()
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=STOP)
