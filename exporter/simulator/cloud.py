"""The simulated Tedee cloud, as an ASGI application."""

import gzip
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from typing import Final

from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from .api import Api, Handler
from .connection import ClientGone, Connection, silence
from .limits import Limits, Violation
from .oauth import TOKEN_PATH, refresh
from .request import Request
from .response import Response
from .wire import AS_DOCUMENTED, Variants
from .world import World

# The versions cover both formats: v1.34 is the last one with `lockProperties`.
DEFAULT_VERSIONS: Final = ("v1.34", "v1.35", "v1.36", "v37")


@dataclass
class Call:
    """A call that the cloud received. It is recorded as soon as the request is complete.

    `endpoint` is "sync", "locks", "devices", "details", "bridges", "keypads", "door_sensors", "gates", "activity",
    "token", or "unknown". `ids` are those of the requested devices. `account` is the account of the credential, valid
    or not; None if the credential is unknown. `arrived` and `finished` are seconds of the cloud's monotonic clock; `at`
    is the time of arrival by the world's clock, in Unix seconds. `finished` is None while the call is in progress, then
    the time just before the last bytes were sent or at which the call ended without them. `status` is None unless the
    whole response was sent.
    """

    account: str | None
    endpoint: str
    version: str
    arrived: float
    at: float
    ids: tuple[int, ...]
    user_agent: str
    correlation_id: str
    finished: float | None = None
    status: int | None = None


class Cloud:
    """Tedee's API for a world.

    It records every call and every violation of the limits. A `strict` cloud responds to violations with 429.
    `clock` is monotonic and measures the limits (`sync_spacing` seconds, `hourly_limit` calls, `locks_limit` calls of
    the list of locks in 10 minutes). The states of devices and the expiry of credentials depend on the world's clock.
    `versions` are the supported versions, oldest first. `variants` are the formats that vary.
    """

    def __init__(
        self,
        world: World,
        *,
        strict: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sync_spacing: float = 20.0,
        hourly_limit: int = 700,
        locks_limit: int = 10,
        versions: Sequence[str] = DEFAULT_VERSIONS,
        variants: Variants = AS_DOCUMENTED,
        default_page: int = 50,
        largest_page: int = 100,
        smallest_page: int = 1,
    ) -> None:
        self.world = world
        self.calls: list[Call] = []
        self.violations: list[Violation] = []
        self._strict = strict
        self._clock = clock
        self._limits = Limits(
            sync_spacing=sync_spacing, hourly_limit=hourly_limit, locks_limit=locks_limit, strict=strict
        )
        self._api = Api(
            world,
            versions,
            variants,
            default_page=default_page,
            largest_page=largest_page,
            smallest_page=smallest_page,
        )
        self._last_bodies: dict[tuple[str, str], bytes] = {}
        self._router = Router(
            [
                *(
                    Route(f"/api/{{version}}/my/{path}", Endpoint(self._serve, name, handler))
                    for path, name, handler in (
                        ("lock/sync", "sync", self._api.sync),
                        ("lock", "locks", self._api.locks),
                        ("device", "devices", self._api.devices),
                        ("device/details", "details", self._api.details),
                        ("bridge", "bridges", self._api.bridges),
                        ("keypad", "keypads", self._api.keypads),
                        ("doorsensor", "door_sensors", self._api.door_sensors),
                        ("gate", "gates", self._api.gates),
                        ("deviceactivity", "activity", self._api.activity),
                    )
                ),
                Route(TOKEN_PATH.lower(), Endpoint(self._serve, "token", partial(refresh, world))),
            ],
            redirect_slashes=False,
            default=Endpoint(self._serve, "unknown", self._api.unknown),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request. Tedee's paths are case-insensitive and may end with a slash."""
        await self._router({**scope, "path": scope["path"].lower().removesuffix("/")}, receive, send)

    @property
    def variants(self) -> Variants:
        """The formats of responses that vary. They may be changed at any time."""
        return self._api.variants

    @variants.setter
    def variants(self, variants: Variants) -> None:
        self._api.variants = variants

    def retire(self, version: str) -> None:
        """Stop supporting a version: later calls to it get 404."""
        self._api.retire(version)

    def last_result(self, account: str, endpoint: str = "sync") -> object:
        """Return the `result` of the last complete response to that account. Raises KeyError if there was none.

        Only genuine responses count.
        """
        return json.loads(self._last_bodies[account, endpoint])["result"]

    async def respond(self, call: Call, request: Request, connection: Connection, handler: Handler) -> Response:  # noqa: ARG002 - a hook
        """Return the response to a call that is not refused. During an outage of the account, it is never sent.

        Subclasses may wait, and change the response and its delivery.

        Raises:
            ClientGone: the client closed the connection while the subclass waited.
        """
        response = handler(request)
        if request.account is not None and request.account.has_outage(self.world.now()):
            return replace(response, deliver=silence)
        return response

    async def _serve(self, endpoint: str, handler: Handler, connection: Connection) -> None:
        arrived = self._clock()
        try:
            request = Request(connection.scope, await connection.body(), self.world)
        except ClientGone:
            return
        call = Call(
            account=request.account_name,
            endpoint=endpoint,
            version=request.version,
            arrived=arrived,
            at=self.world.now(),
            ids=request.ids,
            user_agent=request.user_agent,
            correlation_id=str(uuid.uuid4()),
        )
        self.calls.append(call)
        refusal = self._count(call)

        def finish() -> None:
            if call.finished is None:
                call.finished = self._clock()
                if call.account is not None and refusal is None:
                    self._limits.end_call(call.account, endpoint, call.finished)

        try:
            response = refusal or await self.respond(call, request, connection, handler)
            body = response.body()

            def complete() -> None:
                call.status = response.status
                if response.genuine and call.account is not None:
                    self._last_bodies[call.account, endpoint] = body
                finish()

            head, sent = self._head(call, response, body, gzipped=request.accepts_gzip)
            await response.deliver(connection.on_complete(complete), head, sent)
        except ClientGone:
            pass
        finally:
            finish()

    def _count(self, call: Call) -> Response | None:
        """Count a call and record its violations. Returns a 429 response if a strict cloud refuses the call."""
        if call.account is None or call.endpoint == "token":
            return None
        refusals = self._limits.start_call(call.account, call.endpoint, call.arrived)
        self.violations.extend(refusal.violation for refusal in refusals)
        if not (refusals and self._strict):
            return None
        wait = max(refusal.retry_after for refusal in refusals)
        return Response.error(429, "Rate limit exceeded", headers={"Retry-After": str(wait)})

    def _head(self, call: Call, response: Response, body: bytes, *, gzipped: bool) -> tuple[Message, bytes]:
        """Return the head of a response, and its body as it is sent: compressed if the client accepts that."""
        headers = {
            "Content-Type": response.content_type,
            "Date": formatdate(self.world.now(), usegmt=True),
            "API-Supported-Versions": self._api.supported_versions,
            "X-Correlation-ID": call.correlation_id,
            **response.headers,
        }
        if gzipped and body:
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
            headers["Vary"] = "Accept-Encoding"
        headers["Content-Length"] = str(len(body))
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": response.status, "headers": raw}, body


@dataclass(frozen=True)
class Endpoint:
    """A named endpoint, as the ASGI application of a route."""

    serve: Callable[[str, Handler, Connection], Awaitable[None]]
    name: str
    handler: Handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request to this endpoint."""
        await self.serve(self.name, self.handler, Connection(scope, receive, send))
