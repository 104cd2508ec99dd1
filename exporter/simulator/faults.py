"""Faults of the cloud, scripted call by call."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, Self

from . import delivery
from .delivery import Delivery
from .request import Request
from .response import Answer, encode

PROXY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one call.

    The fields combine freely: after `delay` seconds the cloud gives its answer with this `status` (an error in
    Tedee's envelope, with `messages`), after `edit`, with these `headers` added, by that `deliver`y. If it `echoes`,
    it repeats the caller's credentials wherever it can.
    """

    status: int | None = None
    messages: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    edit: Callable[[Answer], Answer] | None = None
    echoes: bool = False
    deliver: Delivery = delivery.whole

    @classmethod
    def error(cls, status: int, *messages: str, headers: Mapping[str, str] | None = None, delay: float = 0.0) -> Self:
        """An error in Tedee's envelope."""
        return cls(status=status, messages=messages, headers=headers or {}, delay=delay)

    @classmethod
    def too_many_requests(cls, retry_after: object = None) -> Self:
        """429, with a Retry-After of seconds, an HTTP date or nonsense; without one if None."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls.error(429, "Rate limit exceeded", headers=headers)

    @classmethod
    def delayed(cls, seconds: float) -> Self:
        """The normal answer, but late."""
        return cls(delay=seconds)

    @classmethod
    def silence(cls) -> Self:
        """No answer until the client goes away."""
        return cls(deliver=delivery.silence)

    @classmethod
    def reset(cls) -> Self:
        """A connection reset before any byte."""
        return cls(deliver=delivery.reset)

    @classmethod
    def reset_mid_body(cls) -> Self:
        """Headers, half of the body, and a connection reset."""
        return cls(deliver=delivery.reset_mid_body)

    @classmethod
    def drip(cls, size: int = 16, interval: float = 0.01) -> Self:
        """The normal answer, `size` bytes at a time, with `interval` seconds before each."""
        return cls(deliver=delivery.drip(size, interval))

    @classmethod
    def malformed(cls) -> Self:
        """JSON that ends in the middle, in an answer that is complete for HTTP."""
        return cls(edit=lambda answer: replace(answer, raw=answer.body()[: len(answer.body()) // 2], genuine=False))

    @classmethod
    def json(cls, value: object) -> Self:
        """Any JSON value in place of the whole envelope."""
        return cls.body(encode(value), content_type="application/json")

    @classmethod
    def result(cls, value: object) -> Self:
        """Any JSON value as the envelope's `result`."""
        return cls(edit=lambda answer: replace(answer, result=value, genuine=False))

    @classmethod
    def body(cls, body: bytes, content_type: str = "text/html", status: int = 200) -> Self:
        """Any bytes as the body."""
        return cls(
            edit=lambda answer: replace(answer, status=status, raw=body, content_type=content_type, genuine=False)
        )

    @classmethod
    def html(cls, status: int = 502) -> Self:
        """The page of a proxy or gateway; some send it with status 200."""
        return cls.body(PROXY_PAGE, status=status)

    @classmethod
    def redirect(cls, location: str, status: int = 302) -> Self:
        """A redirect to `location`, without a body."""
        return replace(cls.body(b"", status=status), headers={"Location": location})

    @classmethod
    def unsuccessful(cls, *messages: str) -> Self:
        """`success: false` with HTTP 200."""
        return cls(edit=lambda answer: replace(answer, result=None, success=False, messages=messages, genuine=False))

    @classmethod
    def echo(cls, status: int = 401) -> Self:
        """An error that repeats the credentials of the request, as gateways do that show it for debugging."""
        return cls(status=status, echoes=True)

    @classmethod
    def answer(cls, transform: Callable[[list[Any]], list[Any]]) -> Self:
        """The normal answer, its list edited; what is no list stays. It still counts as the cloud's last answer."""

        def edit(answer: Answer) -> Answer:
            return replace(answer, result=transform(answer.result)) if isinstance(answer.result, list) else answer

        return cls(edit=edit)

    def after(self, seconds: float) -> Self:
        """The same fault, that many seconds later."""
        return replace(self, delay=seconds)

    def apply(self, answer: Answer, request: Request) -> Answer:
        """What becomes of the normal answer."""
        if self.status is not None:
            messages = self.messages or (HTTPStatus(self.status).phrase,)
            answer = Answer.error(self.status, *messages, headers=answer.headers)
        if self.edit is not None:
            answer = self.edit(answer)
        if self.echoes:
            answer = _echo(answer, request)
        return answer.with_headers(self.headers)


def _echo(answer: Answer, request: Request) -> Answer:
    """The answer with what the request says of who calls, in all that an error of the API or of OAuth has."""
    said = "; ".join(request.says)
    body = {
        "result": [said],
        "success": False,
        "errorMessages": list(request.says),
        "statusCode": said,
        "error": said,
        "error_description": said,
    }
    headers = {"X-Correlation-ID": said, "API-Supported-Versions": said}
    return replace(answer, raw=encode(body), genuine=False).with_headers(headers)


TABLE: Final[Mapping[str, Fault]] = {
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
    "answer": Fault.answer(lambda rows: [*rows, "not a lock"]),
}
"""One of each kind, by name, for whoever wants to meet them all."""


@dataclass
class Script:
    """Faults still to come for the calls of an account and endpoint; None stands for any of them."""

    account: str | None
    endpoint: str | None
    faults: deque[Fault | None]
    forever: bool

    def concerns(self, account: str | None, endpoint: str) -> bool:
        """Whether a call of that account (None: of nobody known) to that endpoint takes its fault from here."""
        return bool(self.faults) and self.account in (None, account) and self.endpoint in (None, endpoint)

    def take(self) -> Fault | None:
        """The next fault; None for a normal answer."""
        if self.forever and len(self.faults) == 1:
            return self.faults[0]
        return self.faults.popleft()


class Faults:
    """The scripts of a cloud. Written by tests, read by the server's thread."""

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
        """Let the next calls meet these faults in order, one a call; None is a normal answer.

        `account` and `endpoint` ("sync", "locks", "details", "token") narrow down which calls. With `forever` the last
        fault repeats until `clear`. Scripts are used up in the order of their writing.
        """
        with self._lock:
            self._scripts.append(Script(account, endpoint, deque(faults), forever))

    def clear(self) -> None:
        """Forget all that is still to come."""
        with self._lock:
            self._scripts.clear()

    def next(self, account: str | None, endpoint: str) -> Fault | None:
        """The fault this call meets, if any; it is used up."""
        with self._lock:
            script = next((script for script in self._scripts if script.concerns(account, endpoint)), None)
            return script.take() if script else None
