"""The endpoints."""

import re
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.clock import Clock
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import Board

from .configuration import Protection
from .gate import Gate
from .pages import HEADERS, Pages

BROWSER = frozenset({"origin", "referer", "sec-fetch-site"})
"""Headers by which a browser's request is known: no script can take all of them away from a POST."""


def create_app(
    board: Board,
    exposition: Exposition,
    clock: Clock,
    *,
    version: str,
    telemetry_path: str = "/metrics",
    reload: Callable[[], list[str]] | None = None,
    protection: Callable[[], Protection] = Protection,
) -> ASGIApp:
    """The web application. No request to it ever causes a call to Tedee or waits for one.

    Args:
        board: for the status page and readiness.
        exposition: for the metrics.
        clock: for ages on the status page.
        version: of the exporter, shown on the status page.
        telemetry_path: where the metrics are.
        reload: loads the configuration again and returns what is wrong with it; None where that is not possible.
        protection: what the web configuration demands now.
    """
    pages = Pages(board, clock, version=version, telemetry_path=telemetry_path)

    async def metrics(request: Request) -> Response:
        scrape = exposition.scrape(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))
        headers = {"Content-Type": scrape.content_type, "Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
        if scrape.gzipped:
            headers["Content-Encoding"] = "gzip"
        return _InParts(scrape.parts, headers)

    def status(_request: Request) -> Response:
        # Not async: a page of thousands of locks is rendered on a thread beside the loop that answers scrapes.
        return HTMLResponse(pages.status(), headers=HEADERS)

    def docs(request: Request) -> Response:
        return HTMLResponse(pages.docs(_host(request.headers)), headers=HEADERS)

    async def healthy(_request: Request) -> Response:
        return PlainTextResponse("tedee-exporter is healthy.\n")

    async def ready(_request: Request) -> Response:
        waiting = [status.account for status in board.statuses() if status.up is None]
        if waiting:
            progress = f"{len(waiting)} of {len(board.statuses())} accounts not synced yet"
            return PlainTextResponse(f"tedee-exporter is not ready: {progress}.\n", 503)
        return PlainTextResponse("tedee-exporter is ready.\n")

    def reload_configuration(request: Request) -> Response:
        if not BROWSER.isdisjoint(request.headers):
            # Some page, of anybody's, has the reader's browser send this. No page of ours does.
            return PlainTextResponse("not reloaded: browsers may not ask for that\n", 403)
        problems = reload() if reload else ["there is no configuration to reload"]
        if problems:
            return PlainTextResponse("".join(f"not reloaded: {problem}\n" for problem in problems), 500)
        return PlainTextResponse("reloaded\n")

    routes: list[BaseRoute] = [
        Route(telemetry_path, metrics),
        Route("/-/healthy", healthy),
        Route("/-/ready", ready),
        Route("/-/reload", reload_configuration, methods=["POST"]),
        Route("/", status),
        Route("/docs", docs),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # it would redirect to whatever host the request names
    return Gate(app, clock, protection)


class _InParts(Response):
    """An answer whose parts are sent one after the other."""

    def __init__(self, parts: tuple[bytes, ...], headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(sum(map(len, parts)))})
        self._parts = parts

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        *first, last = self._parts
        for part in first:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": last})


def _host(headers: Headers) -> str:
    """What the client calls this server, if it can be shown."""
    host = headers.get("host", "")
    return (
        host
        if re.fullmatch(r"[\w.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", host)
        else "localhost:10333"
    )
