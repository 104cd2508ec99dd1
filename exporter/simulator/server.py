"""Serves an ASGI application over HTTP on a loopback address, in a separate thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

TRANSPORT: Final = "tedee.simulator.transport"
"""The scope extension with the `transport` of the TCP connection, with which a test can reset it."""

# Seconds after which an idle connection is closed. The exporter itself uses a new connection for each call.
KEEP_ALIVE_TIMEOUT: Final = 120

# Seconds to wait for the end of calls in progress after their connections were aborted.
STOP_TIMEOUT: Final = 1.0


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, with a scope extension (see `TRANSPORT`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def connection_made(self, transport: Any) -> None:
        """Set TCP_NODELAY on a new connection."""
        # asyncio does not set it for sockets made by `socket.create_server`. Without it, the body of a response follows
        # 40 ms after the head.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        """Add the extension to the scope of a new request."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


@dataclass(frozen=True)
class Address:
    """The address on which the application is served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Iterator[Address]:
    """Serve an application until the context ends. Port 0 selects a free port.

    Raises OSError if the port is in use. Calls in progress at the end are aborted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, app, listener, stop), name="simulated-cloud", daemon=True)
    thread.start()
    try:
        # The socket is already listening: clients that connect before the thread is ready wait.
        yield Address(host, listener.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=STOP_TIMEOUT + 1)


def _run(loop: asyncio.AbstractEventLoop, app: ASGIApp, listener: socket.socket, stop: asyncio.Event) -> None:
    try:
        loop.run_until_complete(_serve_until(stop, app, listener))
    finally:
        loop.close()


async def _serve_until(stop: asyncio.Event, app: ASGIApp, listener: socket.socket) -> None:
    # Uvicorn's protocol without uvicorn's server, which waits for calls in progress before it stops.
    # The protocol disables the access log. With `access_log=False`, the configuration would change uvicorn's loggers.
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, timeout_keep_alive=KEEP_ALIVE_TIMEOUT)
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
        await asyncio.wait(state.tasks, timeout=STOP_TIMEOUT)
