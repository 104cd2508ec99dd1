"""The simulated Tedee cloud, as an ASGI application."""

import gzip
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Final

from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from .api import Api, Respond
from .delivery import ClientGone, Connection, whole
from .faults import Faults
from .limits import Limits, Violation
from .oauth import TOKEN_PATH, refresh
from .request import Request
from .response import Answer
from .world import World

# Both wire shapes side by side: v1.34 is the last with `lockProperties`.
DEFAULT_VERSIONS: Final = ("v1.34", "v1.35", "v1.36", "v37")


@dataclass
class Call:
    """One call the cloud has received, and what became of it.

    `account` is whose credential it bore, valid or not; None if nobody's. `arrived` and `answered` are seconds of the
    cloud's monotonic clock, `at` is the world's time of arrival in Unix seconds. `answered` is None while the call is
    under way, then the moment before its last bytes were sent, or at which it ended without them; `status` is None
    unless the answer was sent in full. The record is there as soon as the call has arrived.
    """

    account: str | None
    endpoint: str
    version: str
    arrived: float
    at: float
    ids: tuple[int, ...]
    user_agent: str
    correlation_id: str
    answered: float | None = None
    status: int | None = None


class Cloud:
    """Tedee's API over a world.

    Keeps record of every call and of every breach of the limits; a `strict` cloud answers breaches with 429.
    `clock` is monotonic and measures the limits (`sync_spacing` seconds, `hourly_limit` calls); what is told about
    locks, and when credentials expire, goes by the world's clock. `versions` are those it speaks, oldest first.
    """

    def __init__(
        self,
        world: World,
        *,
        strict: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sync_spacing: float = 20.0,
        hourly_limit: int = 700,
        versions: Sequence[str] = DEFAULT_VERSIONS,
        default_page: int = 50,
        largest_page: int = 100,
        smallest_page: int = 1,
    ) -> None:
        self.world = world
        self.faults = Faults()
        self.calls: list[Call] = []
        self.violations: list[Violation] = []
        self._strict = strict
        self._clock = clock
        self._limits = Limits(sync_spacing=sync_spacing, hourly_limit=hourly_limit, strict=strict)
        self._api = Api(
            world, versions, default_page=default_page, largest_page=largest_page, smallest_page=smallest_page
        )
        self._last_bodies: dict[tuple[str, str], bytes] = {}
        self._router = Router(
            [
                Route("/api/{version}/my/lock/sync", Endpoint(self._serve, "sync", self._api.sync)),
                Route("/api/{version}/my/lock", Endpoint(self._serve, "locks", self._api.locks)),
                Route("/api/{version}/my/device/details", Endpoint(self._serve, "details", self._api.details)),
                Route(TOKEN_PATH.lower(), Endpoint(self._serve, "token", partial(refresh, world))),
            ],
            redirect_slashes=False,
            default=Endpoint(self._serve, "unknown", self._api.unknown),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. Tedee's paths are case-insensitive: here they are all lower case."""
        await self._router({**scope, "path": scope["path"].lower()}, receive, send)

    def retire(self, version: str) -> None:
        """Stop speaking a version: calls to it meet 404 from now on."""
        self._api.retire(version)

    def last_answer(self, account: str, endpoint: str = "sync") -> object:
        """The `result` last sent in full to that account, as JSON gives it. Raises KeyError if there was none.

        An answer edited by `Fault.answer` counts; one that a fault invented does not.
        """
        return json.loads(self._last_bodies[account, endpoint])["result"]

    async def _serve(self, endpoint: str, respond: Respond, connection: Connection) -> None:
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
        fault = None if refusal else self.faults.next(call.account, endpoint)

        def finish() -> None:
            if call.answered is None:
                call.answered = self._clock()
                if call.account is not None and refusal is None:
                    self._limits.leave(call.account, endpoint, call.answered)

        try:
            if fault is not None:
                await connection.pause(fault.delay)
            answer = refusal or respond(request)
            if fault is not None:
                answer = fault.apply(answer, request)
            body = answer.body()

            def complete() -> None:
                call.status = answer.status
                if answer.genuine and call.account is not None:
                    self._last_bodies[call.account, endpoint] = body
                finish()

            head, sent = self._head(call, answer, body, gzipped=request.takes_gzip)
            deliver = fault.deliver if fault else whole
            await deliver(connection.announcing(complete), head, sent)
        except ClientGone:
            pass
        finally:
            finish()

    def _count(self, call: Call) -> Answer | None:
        """Count a call, and note the rules it breaks; the answer that turns it away if the cloud is strict."""
        if call.account is None or call.endpoint == "token":
            return None
        breaches = self._limits.arrive(call.account, call.endpoint, call.arrived)
        self.violations.extend(breach.violation for breach in breaches)
        if not (breaches and self._strict):
            return None
        wait = max(breach.retry_after for breach in breaches)
        return Answer.error(429, "Rate limit exceeded", headers={"Retry-After": str(wait)})

    def _head(self, call: Call, answer: Answer, body: bytes, *, gzipped: bool) -> tuple[Message, bytes]:
        """The head of an answer, and its body as it goes over the wire."""
        headers = {
            "Content-Type": answer.content_type,
            "Date": formatdate(self.world.now(), usegmt=True),
            "API-Supported-Versions": self._api.supported_versions,
            "X-Correlation-ID": call.correlation_id,
            **answer.headers,
        }
        if gzipped and body:
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
            headers["Vary"] = "Accept-Encoding"
        headers["Content-Length"] = str(len(body))
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": answer.status, "headers": raw}, body


@dataclass(frozen=True)
class Endpoint:
    """A named endpoint, as the ASGI application a route leads to."""

    serve: Callable[[str, Respond, Connection], Awaitable[None]]
    name: str
    respond: Respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request to this endpoint."""
        await self.serve(self.name, self.respond, Connection(scope, receive, send))
