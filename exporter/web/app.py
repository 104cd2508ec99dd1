"""The web application and its routes."""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.clock import Clock
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import StatusRegistry

from .middleware import BasicAuthMiddleware, HeadersMiddleware, RateLimitMiddleware, RequestCheckMiddleware
from .policy import SecurityPolicy
from .urls import DEFAULT_URLS, ScrapeTarget, Urls

if TYPE_CHECKING:
    from .pages import Pages

log = structlog.get_logger(__name__)

BROWSER_HEADERS = frozenset({"origin", "referer", "sec-fetch-site"})
"""Headers that identify a request from a browser. No script can remove all of them from a POST."""

RELOAD_SECONDS = 10.0
"""Seconds for which a request to reload waits until the reload is complete."""


def create_app(
    registry: StatusRegistry,
    exposition: Exposition,
    clock: Clock,
    *,
    version: str,
    urls: Urls = DEFAULT_URLS,
    reload: Callable[[], Future[list[str]]] | None = None,
    state_problem: Callable[[], str | None] = lambda: None,
    security_policy: Callable[[], SecurityPolicy] = SecurityPolicy,
) -> ASGIApp:
    """Create the web application. No request causes a call to Tedee or waits for one.

    Args:
        registry: For the status page.
        exposition: For the metrics and readiness.
        clock: For ages on the status page.
        version: Version of the exporter, shown on the pages.
        urls: Paths of the endpoints, and the external URL.
        reload: Starts a reload of the configuration, which returns its errors; None if there is no configuration.
        state_problem: Returns why the state file or database cannot be used; None if it can.
        security_policy: Returns the current security policy.
    """

    @cache
    def pages() -> "Pages":
        # Imported when a page is first requested: the import takes a twentieth of the start time and of the memory.
        from .pages import Pages  # noqa: PLC0415

        return Pages(registry, clock, version=version, telemetry_path=urls.telemetry_path, state_problem=state_problem)

    def status(request: Request) -> Response:
        # Not async: rendering a page with thousands of locks would block the event loop, which serves scrapes.
        return HTMLResponse(pages().status(request.query_params.get("refresh")), headers=pages().headers)

    def docs(request: Request) -> Response:
        target = ScrapeTarget.of(urls, security_policy(), request.headers.get("host", ""))
        return HTMLResponse(pages().docs(target), headers=pages().headers)

    async def healthy(_request: Request) -> Response:
        return PlainTextResponse("tedee-exporter is healthy.\n")

    async def ready(_request: Request) -> Response:
        statuses = exposition.statuses()
        pending = [status.account for status in statuses if status.up is None]
        if pending:
            progress = f"{len(pending)} of {len(statuses)} accounts not synced yet"
            return PlainTextResponse(f"tedee-exporter is not ready: {progress}.\n", 503)
        return PlainTextResponse("tedee-exporter is ready.\n")

    async def reload_configuration(request: Request) -> Response:
        if not BROWSER_HEADERS.isdisjoint(request.headers):
            # A page of another site can make a browser send this request. The exporter's pages never do.
            return PlainTextResponse("not reloaded: requests from browsers are not accepted\n", 403)
        if not reload:
            return PlainTextResponse("not reloaded: there is no configuration to reload\n", 500)
        try:
            # All requests share one reload, and they wait for it in the event loop, not in a thread of the pages.
            problems = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(reload())), RELOAD_SECONDS)
        except TimeoutError:
            return PlainTextResponse(
                f"not reloaded yet: the reload did not complete within {RELOAD_SECONDS:g} s\n", 503
            )
        if problems:
            return PlainTextResponse("".join(f"not reloaded: {problem}\n" for problem in problems), 500)
        return PlainTextResponse("reloaded\n")

    async def handle_os_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise error
        # The first request for a page imports modules and reads templates, which takes file descriptors.
        log.warning("page cannot be rendered", path=request.url.path, error=error.strerror)
        return PlainTextResponse(f"temporarily unavailable: {error.strerror}\n", 503)

    async def handle_http_error(_request: Request, error: Exception) -> Response:
        # Starlette's own response does not end with a newline.
        assert isinstance(error, HTTPException)  # noqa: S101 - this is what the handler is registered for
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)

    prefix = urls.prefix
    probes = [Route(f"{prefix}/-/healthy", healthy), Route(f"{prefix}/-/ready", ready)]
    routes: list[BaseRoute] = [
        Route(prefix + urls.telemetry_path, Metrics(exposition), methods=["GET"]),
        *probes,
        Route(f"{prefix}/-/reload", reload_configuration, methods=["POST"]),
        Route(f"{prefix}/", status),
        Route(f"{prefix}/docs", docs),
    ]
    if prefix:
        # The targets are relative, so that they are right behind a proxy that adds or removes a part of the path.
        last = (urlsplit(urls.external).path or prefix).rpartition("/")[2]
        routes += [redirect("/", f"{prefix[1:]}/"), redirect(prefix, f"{last}/")]
    starlette = Starlette(
        routes=routes, exception_handlers={OSError: handle_os_error, HTTPException: handle_http_error}
    )
    starlette.router.redirect_slashes = False  # a redirect would go to the host that the request names
    open_paths = frozenset(probe.path for probe in probes)
    # Not Starlette's `middleware`, which does not process the responses to unhandled exceptions.
    app: ASGIApp = BasicAuthMiddleware(starlette, security_policy, open_paths)
    app = RateLimitMiddleware(app, security_policy, clock, open_paths)
    app = RequestCheckMiddleware(app)
    return HeadersMiddleware(app, security_policy)


class Metrics:
    """ASGI application for the metrics. Starlette's requests and responses would double the time of a scrape."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response to a scrape."""
        query = scope["query_string"]
        names = parse_qs(query.decode("latin-1")).get("name[]", ()) if query else ()
        scrape = self._exposition.scrape(_header(scope, b"accept"), _header(scope, b"accept-encoding"), names)
        headers = [
            (b"content-type", scrape.content_type.encode()),
            (b"content-length", b"%d" % sum(map(len, scrape.parts))),
            (b"vary", b"Accept, Accept-Encoding"),
            (b"cache-control", b"no-store"),
        ]
        if scrape.gzipped:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        first, last = scrape.parts
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await send({"type": "http.response.body", "body": last})


def _header(scope: Scope, name: bytes) -> str:
    """Return the value of a header. If it is sent several times, the values form one list (RFC 9110, 5.3)."""
    return b",".join([value for each, value in scope["headers"] if each == name]).decode("latin-1")


def redirect(path: str, target: str) -> Route:
    """Return a route that redirects a path to a relative target, with the query of the request."""

    async def respond(request: Request) -> Response:
        query = request.url.query
        location = f"{target}?{query}" if query else target
        return PlainTextResponse(f"{location}\n", 302, {"Location": location})

    return Route(path, respond)
