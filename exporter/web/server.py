"""uvicorn in its own thread, because the main thread handles signals."""

import asyncio
import logging
import math
import socket
import threading
from collections.abc import Sequence

import structlog
import uvicorn
from starlette.types import ASGIApp

from .connections import Connections

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
        accepting = asyncio.create_task(self._connections.accept(self._listeners, self._server))
        accepting.add_done_callback(self._stopped_accepting)
        await self._server.serve(sockets=[])
        accepting.cancel()
        await asyncio.wait([accepting])  # the task still uses the listeners
        for listener in self._listeners:
            listener.close()

    def _stopped_accepting(self, accepting: asyncio.Task[None]) -> None:
        if not accepting.cancelled():
            log.error("the web server no longer accepts connections", exc_info=accepting.exception())
            self._server.should_exit = True
