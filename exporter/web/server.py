"""uvicorn on a thread of its own, so that signals stay with the main thread."""

import asyncio
import errno
import logging
import math
import re
import socket
import threading

import structlog
import uvicorn
from starlette.types import ASGIApp

from .connections import Connections

log = structlog.get_logger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class BadAddress(ValueError):
    """A listen address that is none."""


def parse_address(address: str) -> tuple[str, int]:
    """Host (empty for all) and port of `:10333`, `127.0.0.1:10333` or `[::1]:10333`.

    Raises:
        BadAddress: it has another form.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>[0-9]{1,5})", address)
    if not match or int(match["port"]) > 65_535:  # noqa: PLR2004
        raise BadAddress(f"{address!r} is not of the form :10333, 127.0.0.1:10333 or [::1]:10333")
    return match["v6"] or match["host"], int(match["port"])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; for an empty host on all addresses, of both families where the machine has them.

    Raises:
        OSError: the address cannot be had.
    """
    listener = _listener(host, port)
    # Sockets accepted from it inherit this. Without, a client that keeps its connection gets head and body 40 ms apart.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _listener(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # a machine with IPv6 switched off
                raise
    family = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0][0]  # noqa: S104
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class WebServer:
    """Serves an application until it is told to stop."""

    def __init__(self, app: ASGIApp, listener: socket.socket, connections: Connections) -> None:
        self._listener = listener
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
                timeout_keep_alive=math.ceil(connections.limits.answer_seconds),
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Complete the responses under way, for about a second at most, and end."""
        # What is cut off after that second is cut off on purpose.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server.should_exit = True
        self._thread.join(timeout=1.2)

    def alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._server.config.load()
        accepting = asyncio.create_task(self._connections.accept(self._listener, self._server))
        accepting.add_done_callback(self._stopped_accepting)
        await self._server.serve(sockets=[])
        accepting.cancel()
        self._listener.close()

    def _stopped_accepting(self, accepting: asyncio.Task[None]) -> None:
        if not accepting.cancelled():
            log.error("the web server accepts no more", exc_info=accepting.exception())
            self._server.should_exit = True
