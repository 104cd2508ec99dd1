"""uvicorn in its own thread, because the main thread handles signals.

Connections are accepted here, because uvicorn counts a connection only after the TLS handshake, and loads its
certificate once.
"""

import asyncio
import errno
import logging
import math
import socket
import threading
from collections.abc import Sequence

import structlog
import uvicorn
from starlette.types import ASGIApp

from .connections import WRITE_BUFFER, Connection, Connections

log = structlog.get_logger(__name__)


class WebServer:
    """Serves an application on one or more listening sockets until it is stopped."""

    def __init__(self, app: ASGIApp, listeners: Sequence[socket.socket], connections: Connections) -> None:
        self._listeners = listeners
        self._connections = connections
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=math.ceil(connections.limits.response_seconds),
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server. Responses in progress have about a second to complete."""
        # uvicorn logs an error for each response that is aborted after that second.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server.should_exit = True
        self._thread.join(timeout=1.2)

    def alive(self) -> bool:
        """Return True while the server runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._server.config.load()
        accepting = asyncio.create_task(self._accept_all())
        accepting.add_done_callback(self._stopped_accepting)
        await self._server.serve(sockets=[])
        accepting.cancel()
        await asyncio.wait([accepting])  # the task still uses the listeners
        for listener in self._listeners:
            listener.close()

    async def _accept_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connections.sweep())
            for listener in self._listeners:
                tasks.create_task(self._accept(listener))

    async def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's server, which owns the connections that are in the TLS handshake, and has one TLS context.
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        starting = set()
        is_failing = False
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                # ECONNABORTED: the client has closed the connection. Otherwise the limit of open files may be reached.
                if error.errno != errno.ECONNABORTED:
                    if not is_failing:
                        log.warning("cannot accept connections", error=error.strerror)
                    is_failing = True
                    self._connections.close_least_recent()
                    await asyncio.sleep(0.1)
                continue
            is_failing = False
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # otherwise the kernel buffers megabytes for each connection
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, WRITE_BUFFER)
            connection = Connection(self._connections, accepted, self._server)
            self._connections.add(connection)
            task = loop.create_task(connection.start())
            starting.add(task)
            task.add_done_callback(starting.discard)
            # `sock_accept` may return at once while connections wait. Without a pause, a flood would stop everything.
            await asyncio.sleep(0)

    def _stopped_accepting(self, accepting: asyncio.Task[None]) -> None:
        if not accepting.cancelled():
            log.error("the web server no longer accepts connections", exc_info=accepting.exception())
            self._server.should_exit = True
