"""ASGI middleware: response headers, checks of the request, rate limit, basic authentication.

For the speed of scrapes, functions that await nothing return the awaitable of the next application, and the raw headers
are used: Starlette's Headers would take ten times as long.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock
from exporter.secrets import Secret

from .basic_auth import BasicAuth, TooManyAttempts
from .policy import RateLimit, SecurityPolicy

NOSNIFF = (b"x-content-type-options", b"nosniff")
CLOSE = {"Connection": "close"}
CHALLENGE = {"WWW-Authenticate": 'Basic realm="tedee-exporter", charset="UTF-8"'}


class HeadersMiddleware:
    """Adds the headers of the web configuration to every response."""

    def __init__(self, app: ASGIApp, security_policy: Callable[[], SecurityPolicy]) -> None:
        self._app = app
        self._security_policy = security_policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request."""

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"].append(NOSNIFF)
                headers = self._security_policy().headers
                if headers:
                    MutableHeaders(raw=message["headers"]).update(headers)
            return send(message)

        await self._app(scope, receive, send_with_headers)


class RequestCheckMiddleware:
    """Rejects requests that have a body, or not exactly one Host header.

    No route takes a body. RFC 9112, 3.2 requires the Host header of HTTP/1.1.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Process a request."""
        app, has_body, hosts = self._app, False, 0
        for name, value in scope["headers"]:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                has_body = True
        if has_body:
            app = PlainTextResponse("Requests with a body are not accepted.\n", 413, CLOSE)
        elif hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
            app = PlainTextResponse("A request must have exactly one Host header.\n", 400, CLOSE)
        return app(scope, receive, send)


class RateLimitMiddleware:
    """Limits the requests of all clients together. The limit is a token bucket, which is full at first."""

    def __init__(
        self, app: ASGIApp, security_policy: Callable[[], SecurityPolicy], clock: Clock, open_paths: Collection[str]
    ) -> None:
        """Create the middleware.

        Args:
            app: The next application.
            security_policy: Returns the current security policy.
            clock: For the time between requests.
            open_paths: Paths without a limit: those of probes. The responses contain nothing about locks.
        """
        self._app = app
        self._security_policy = security_policy
        self._clock = clock
        self._open_paths = open_paths
        self._used = 0.0
        self._updated_at = clock.monotonic()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Process a request."""
        app, limit = self._app, self._security_policy().rate_limit
        if limit.interval and scope["path"] not in self._open_paths and not self._take(limit):
            app = PlainTextResponse(
                "Too many requests: see rate_limit in the web configuration.\n",
                429,
                {"Retry-After": str(math.ceil(limit.interval))},
            )
        return app(scope, receive, send)

    def _take(self, limit: RateLimit) -> bool:
        """Take a token. Returns True if there was one."""
        now = self._clock.monotonic()
        used = max(0.0, self._used - (now - self._updated_at) / limit.interval)
        taken = used + 1 <= limit.burst
        self._used, self._updated_at = used + taken, now
        return taken


class BasicAuthMiddleware:
    """Requires the name and the password of a user, if the web configuration has users."""

    def __init__(
        self, app: ASGIApp, security_policy: Callable[[], SecurityPolicy], open_paths: Collection[str]
    ) -> None:
        """Create the middleware.

        Args:
            app: The next application.
            security_policy: Returns the current security policy.
            open_paths: Paths without a password, because probes have none. The responses contain nothing about locks.
        """
        self._app = app
        self._security_policy = security_policy
        self._open_paths = open_paths
        self._basic_auth = BasicAuth()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request."""
        app, users = self._app, self._security_policy().users
        if users and scope["path"] not in self._open_paths:
            try:
                if not await self._is_authenticated(users, scope):
                    app = PlainTextResponse("Unauthorized\n", 401, CHALLENGE)
            except TooManyAttempts:
                app = PlainTextResponse("Too many passwords to check.\n", 429, {"Retry-After": "1"})
        await app(scope, receive, send)

    async def _is_authenticated(self, users: Mapping[str, Secret], scope: Scope) -> bool:
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        client, _ = scope.get("client") or ("", 0)
        is_disconnected = scope.get("state", {}).get("is_disconnected", lambda: False)
        return await self._basic_auth.authenticate(users, authorization.decode("latin-1"), client, is_disconnected)
