"""ASGI middleware for every request: checks of the request, rate limit, basic authentication, response headers."""

import math
from collections.abc import Callable, Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock

from .basic_auth import BasicAuth, TooManyAttempts
from .settings import RateLimit, SecurityPolicy

SLICE_BYTES = 2**16
"""Maximum number of bytes of a response body that are encrypted at a time."""

PROBES = frozenset({"/-/healthy", "/-/ready"})
"""Paths that need no password, because probes have none. The responses contain nothing about locks."""

NOSNIFF = (b"x-content-type-options", b"nosniff")


class Middleware:
    """The middleware around the application."""

    def __init__(self, app: ASGIApp, clock: Clock, security_policy: Callable[[], SecurityPolicy]) -> None:
        """Wrap an application.

        Args:
            app: Receives the accepted requests.
            clock: For the rate limit.
            security_policy: Returns the current security policy.
        """
        self._app = app
        self._security_policy = security_policy
        self._basic_auth = BasicAuth()
        self._bucket = TokenBucket(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request or pass it to the application."""
        policy = self._security_policy()
        connection = scope.get("state", {}).get("connection")
        if connection:
            connection.request_started()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(NOSNIFF)
                if policy.headers:
                    MutableHeaders(raw=message["headers"]).update(policy.headers)
            if connection and len(message.get("body", b"")) > SLICE_BYTES:
                connection.start_body(message["body"])
            for part in _slices(message) if scope["scheme"] == "https" else (message,):
                # uvicorn marks only the last of pipelined requests as disconnected, and would write for the others.
                if not (connection and connection.lost):
                    await send(part)

        try:
            error = _check_request(scope)
            if not error and scope["path"] not in PROBES:
                error = self._check_rate_limit(policy.rate_limit) or await self._authenticate(policy, scope)
            await (error or self._app)(scope, receive, send_with_headers)
        finally:
            if connection:
                connection.request_finished()

    def _check_rate_limit(self, limit: RateLimit) -> PlainTextResponse | None:
        """Return an error response if the rate limit is exceeded."""
        if not limit.interval or self._bucket.take(limit):
            return None
        return PlainTextResponse(
            "Too many requests: see rate_limit in the web configuration.\n",
            429,
            headers={"Retry-After": str(math.ceil(limit.interval))},
        )

    async def _authenticate(self, policy: SecurityPolicy, scope: Scope) -> PlainTextResponse | None:
        """Return an error response if a password is required and the request has no valid one."""
        if not policy.users:
            return None
        authorization = Headers(scope=scope).get("authorization")
        client = scope.get("client") or ("",)
        connection = scope.get("state", {}).get("connection")
        try:
            if authorization and await self._basic_auth.authenticate(
                policy.users, authorization, client[0], lambda: bool(connection and connection.lost)
            ):
                return None
        except TooManyAttempts:
            return PlainTextResponse("Too many passwords to check.\n", 429, headers={"Retry-After": "1"})
        return PlainTextResponse(
            "Unauthorized\n", 401, headers={"WWW-Authenticate": 'Basic realm="tedee-exporter", charset="UTF-8"'}
        )


class TokenBucket:
    """A token bucket, initially full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used = 0.0
        self._updated_at = clock.monotonic()

    def take(self, limit: RateLimit) -> bool:
        """Take a token. Returns True if there was one."""
        now = self._clock.monotonic()
        used = max(0.0, self._used - (now - self._updated_at) / limit.interval)
        taken = used + 1 <= limit.burst
        self._used, self._updated_at = used + taken, now
        return taken


def _slices(message: Message) -> Iterator[Message]:
    """Yield a message with a large body as several messages; the server sends each when the previous one is sent.

    Without slicing, TLS would buffer an encrypted copy of the whole body for each stalled client. With it, all clients
    share the plaintext.
    """
    body = message.get("body", b"")
    if len(body) <= SLICE_BYTES:
        yield message
        return
    whole, more = memoryview(body), message.get("more_body", False)
    for start in range(0, len(whole), SLICE_BYTES):
        end = start + SLICE_BYTES
        yield {**message, "body": whole[start:end], "more_body": more or end < len(whole)}


def _check_request(scope: Scope) -> PlainTextResponse | None:
    """Return an error response if the request has a body, or not exactly one Host header.

    No route takes a body. RFC 9112, 3.2 requires the Host header of HTTP/1.1.
    """
    # The raw headers, because Starlette's Headers would take ten times as long, and this runs for each request.
    hosts = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return PlainTextResponse("Requests with a body are not accepted.\n", 413, headers={"Connection": "close"})
        hosts += name == b"host"
    if hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
        return PlainTextResponse("A request must have exactly one Host header.\n", 400, headers={"Connection": "close"})
    return None
