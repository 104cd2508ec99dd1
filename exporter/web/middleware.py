"""What every request passes on its way to the application: the rate limit, passwords, and headers for its answer."""

import math
from collections.abc import Callable, Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock

from .basic_auth import BasicAuth, TooManyAttempts
from .configuration import RateLimit, SecurityPolicy

PIECE = 2**16
"""Bytes of an answer that are encrypted at once."""

PROBES = frozenset({"/-/healthy", "/-/ready"})
"""Open to everybody, since what probes has no password: they tell that the exporter runs, and nothing of locks."""

NOSNIFF = (b"x-content-type-options", b"nosniff")


class Middleware:
    """The middleware around the application."""

    def __init__(self, app: ASGIApp, clock: Clock, policy: Callable[[], SecurityPolicy]) -> None:
        """Stand before an application.

        Args:
            app: what answers those who are let in.
            clock: for the rate limit.
            policy: what holds now.
        """
        self._app = app
        self._policy = policy
        self._basic_auth = BasicAuth()
        self._bucket = Bucket(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application answer it."""
        policy = self._policy()
        connection = scope.get("state", {}).get("connection")
        if connection:
            connection.request_begins()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(NOSNIFF)
                if policy.headers:
                    MutableHeaders(raw=message["headers"]).update(policy.headers)
            if connection and len(message.get("body", b"")) > PIECE:
                connection.start_body(message["body"])
            for piece in _pieces(message) if scope["scheme"] == "https" else (message,):
                # uvicorn marks only the last of pipelined requests as disconnected, and would write for the others.
                if not (connection and connection.lost):
                    await send(piece)

        try:
            refusal = _reject_body(scope)
            if not refusal and scope["path"] not in PROBES:
                refusal = self._check_rate_limit(policy.rate_limit) or await self._authenticate(policy, scope)
            await (refusal or self._app)(scope, receive, send_with_headers)
        finally:
            if connection:
                connection.request_ends()

    def _check_rate_limit(self, limit: RateLimit) -> PlainTextResponse | None:
        if not limit.interval or self._bucket.take(limit):
            return None
        return PlainTextResponse(
            "Too many requests: see rate_limit in the web configuration.\n",
            429,
            headers={"Retry-After": str(math.ceil(limit.interval))},
        )

    async def _authenticate(self, policy: SecurityPolicy, scope: Scope) -> PlainTextResponse | None:
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
            return PlainTextResponse("Too many passwords at once.\n", 429, headers={"Retry-After": "1"})
        return PlainTextResponse(
            "Unauthorized\n", 401, headers={"WWW-Authenticate": 'Basic realm="tedee-exporter", charset="UTF-8"'}
        )


class Bucket:
    """A token bucket, full at first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent = 0.0
        self._at = clock.monotonic()

    def take(self, limit: RateLimit) -> bool:
        """Take one, if there is one."""
        now = self._clock.monotonic()
        spent = max(0.0, self._spent - (now - self._at) / limit.interval)
        granted = spent + 1 <= limit.burst
        self._spent, self._at = spent + granted, now
        return granted


def _pieces(message: Message) -> Iterator[Message]:
    """A message with a large body as several, of which each waits until the client has taken those before it.

    Whoever takes nothing would otherwise have the whole answer encrypted and kept for him. As it is, it is the same for
    all, and nothing is kept for anybody but how far he is.
    """
    body = message.get("body", b"")
    if len(body) <= PIECE:
        yield message
        return
    whole, more = memoryview(body), message.get("more_body", False)
    for at in range(0, len(whole), PIECE):
        yield {**message, "body": whole[at : at + PIECE], "more_body": more or at + PIECE < len(whole)}


def _reject_body(scope: Scope) -> PlainTextResponse | None:
    """Return the response to a request that is refused unread: one with a body, or without exactly one Host.

    Nothing here takes a body. RFC 9112, 3.2 requires the Host of HTTP/1.1.
    """
    # Each request passes here: the headers as they are cost a tenth of those that Starlette makes of them.
    hosts = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return PlainTextResponse("Requests have no body here.\n", 413, headers={"Connection": "close"})
        hosts += name == b"host"
    if hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
        return PlainTextResponse("A request needs exactly one Host.\n", 400, headers={"Connection": "close"})
    return None
