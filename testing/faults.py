"""Faults of the simulated cloud, scripted for each call."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, Self

from exporter.simulator import Call, Cloud, World
from exporter.simulator.api import Handler
from exporter.simulator.connection import Connection, Delivery, in_full, silence
from exporter.simulator.request import Request
from exporter.simulator.response import Response, encode

from . import delivery

PROXY_ERROR_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of one call. The fields can be combined.

    The cloud waits for `delay` seconds. If `status` is set, the response is an error in Tedee's envelope with
    `messages`. Then `edit` changes the response, and `headers` are added. If `echoes` is true, the response repeats
    the client's credentials. `deliver` sends the response.
    """

    status: int | None = None
    messages: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    edit: Callable[[Response], Response] | None = None
    echoes: bool = False
    deliver: Delivery = in_full

    @classmethod
    def error(cls, status: int, *messages: str, headers: Mapping[str, str] | None = None, delay: float = 0.0) -> Self:
        """Respond with an error in Tedee's envelope."""
        return cls(status=status, messages=messages, headers=headers or {}, delay=delay)

    @classmethod
    def too_many_requests(cls, retry_after: object = None) -> Self:
        """Respond with 429 and this Retry-After, valid or not; without the header if None."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls.error(429, "Rate limit exceeded", headers=headers)

    @classmethod
    def delayed(cls, seconds: float) -> Self:
        """Respond normally, after a delay."""
        return cls(delay=seconds)

    @classmethod
    def silence(cls) -> Self:
        """Send nothing until the client disconnects."""
        return cls(deliver=silence)

    @classmethod
    def reset(cls) -> Self:
        """Reset the connection before any byte is sent."""
        return cls(deliver=delivery.reset)

    @classmethod
    def reset_mid_body(cls) -> Self:
        """Send the headers and half of the body, then reset the connection."""
        return cls(deliver=delivery.reset_mid_body)

    @classmethod
    def drip(cls, size: int = 16, interval: float = 0.01) -> Self:
        """Send the normal response in chunks of `size` bytes, with `interval` seconds before each."""
        return cls(deliver=delivery.drip(size, interval))

    @classmethod
    def malformed(cls) -> Self:
        """Respond with truncated JSON, in an HTTP response that is complete."""
        return cls(
            edit=lambda response: replace(response, raw=response.body()[: len(response.body()) // 2], genuine=False)
        )

    @classmethod
    def json(cls, value: object) -> Self:
        """Respond with a JSON value instead of the envelope."""
        return cls.body(encode(value), content_type="application/json")

    @classmethod
    def result(cls, value: object) -> Self:
        """Respond with a JSON value as the envelope's `result`."""
        return cls(edit=lambda response: replace(response, result=value, genuine=False))

    @classmethod
    def body(cls, body: bytes, content_type: str = "text/html", status: int = 200) -> Self:
        """Respond with these bytes as the body."""
        return cls(
            edit=lambda response: replace(response, status=status, raw=body, content_type=content_type, genuine=False)
        )

    @classmethod
    def html(cls, status: int = 502) -> Self:
        """Respond with the HTML page of a proxy or gateway. Some send it with status 200."""
        return cls.body(PROXY_ERROR_PAGE, status=status)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Self:
        """Redirect to `location`, without a body."""
        return replace(cls.body(b"", status=status), headers={"Location": location})

    @classmethod
    def unsuccessful(cls, *messages: str) -> Self:
        """Respond with `success: false` and HTTP status 200."""
        return cls(
            edit=lambda response: replace(response, result=None, success=False, messages=messages, genuine=False)
        )

    @classmethod
    def echo(cls, status: int = 401) -> Self:
        """Respond with an error that repeats the credentials of the request, as gateways do for debugging."""
        return cls(status=status, echoes=True)

    @classmethod
    def edit_rows(cls, transform: Callable[[list[Any]], list[Any]]) -> Self:
        """Respond normally with a transformed list of rows.

        A result that is not a list is unchanged. The response counts for `Cloud.last_result`.
        """

        def edit(response: Response) -> Response:
            return (
                replace(response, result=transform(response.result)) if isinstance(response.result, list) else response
            )

        return cls(edit=edit)

    def after(self, seconds: float) -> Self:
        """Return the same fault after a delay of that many seconds."""
        return replace(self, delay=seconds)

    def apply(self, response: Response, request: Request) -> Response:
        """Return the normal response with the fault applied."""
        if self.status is not None:
            messages = self.messages or (HTTPStatus(self.status).phrase,)
            response = Response.error(self.status, *messages, headers=response.headers)
        if self.edit is not None:
            response = self.edit(response)
        if self.echoes:
            response = _echo(response, request)
        return replace(response.with_headers(self.headers), deliver=self.deliver)


def _echo(response: Response, request: Request) -> Response:
    """Return the response with the credentials of the request in every field of an error of the API or of OAuth."""
    credentials = "; ".join(request.credentials)
    body = {
        "result": [credentials],
        "success": False,
        "errorMessages": list(request.credentials),
        "statusCode": credentials,
        "error": credentials,
        "error_description": credentials,
    }
    headers = {"X-Correlation-ID": credentials, "API-Supported-Versions": credentials}
    return replace(response, raw=encode(body), genuine=False).with_headers(headers)


EXAMPLES: Final[Mapping[str, Fault]] = {
    "error": Fault.error(500, "Something went wrong"),
    "too_many_requests": Fault.too_many_requests(7),
    "delayed": Fault.delayed(0.5),
    "silence": Fault.silence(),
    "reset": Fault.reset(),
    "reset_mid_body": Fault.reset_mid_body(),
    "drip": Fault.drip(),
    "malformed": Fault.malformed(),
    "json": Fault.json(["not an envelope"]),
    "result": Fault.result("not a list"),
    "body": Fault.body(b"\xff\x00"),
    "html": Fault.html(),
    "redirect": Fault.redirect("https://example.invalid/"),
    "unsuccessful": Fault.unsuccessful("Something went wrong"),
    "echo": Fault.echo(),
    "edit_rows": Fault.edit_rows(lambda rows: [*rows, "not a lock"]),
}
"""One fault of each kind, by the name of its constructor."""


@dataclass
class Script:
    """The remaining faults for the calls of an account to an endpoint. None means any account or endpoint."""

    account: str | None
    endpoint: str | None
    faults: deque[Fault | None]
    forever: bool

    def matches(self, account: str | None, endpoint: str) -> bool:
        """Return True if a call of that account (None: unknown) to that endpoint uses this script."""
        return bool(self.faults) and self.account in (None, account) and self.endpoint in (None, endpoint)

    def take(self) -> Fault | None:
        """Remove and return the next fault. None is a normal response."""
        if self.forever and len(self.faults) == 1:
            return self.faults[0]
        return self.faults.popleft()


class Faults:
    """The scripts of a cloud. Tests add them; the server's thread reads them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: list[Script] = []

    def script(
        self,
        *faults: Fault | None,
        account: str | None = None,
        endpoint: str | None = None,
        forever: bool = False,
    ) -> None:
        """Apply these faults to the next calls in order, one to each call. None is a normal response.

        `account` and `endpoint` restrict the calls. Endpoints have the names of `Call.endpoint`: "sync", "details",
        "door_sensors", "activity", "token", and others. With `forever` the last fault repeats until `clear`. Scripts
        apply in the order in which they were added.
        """
        with self._lock:
            self._scripts.append(Script(account, endpoint, deque(faults), forever))

    def clear(self) -> None:
        """Remove all scripts."""
        with self._lock:
            self._scripts.clear()

    def next(self, account: str | None, endpoint: str) -> Fault | None:
        """Remove and return the fault of this call. Returns None if there is none."""
        with self._lock:
            script = next((script for script in self._scripts if script.matches(account, endpoint)), None)
            return script.take() if script else None


class FaultyCloud(Cloud):
    """A simulated cloud whose calls fail as `faults` has it. Calls that it refuses use no fault.

    A response edited by `Fault.edit_rows` counts for `last_result`; one that a fault invented does not.
    """

    def __init__(self, world: World, **options: Any) -> None:
        """Take the options of `Cloud`."""
        super().__init__(world, **options)
        self.faults = Faults()

    async def respond(self, call: Call, request: Request, connection: Connection, handler: Handler) -> Response:
        """Return the response with the next fault of the call."""
        fault = self.faults.next(call.account, call.endpoint)
        if fault is None:
            return await super().respond(call, request, connection, handler)
        await delivery.pause(connection, fault.delay)
        return fault.apply(await super().respond(call, request, connection, handler), request)
